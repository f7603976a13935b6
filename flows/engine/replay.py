"""Runs a function against its checkpoints and returns a decision as data."""

import inspect
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from flows.domain import retry, values
from flows.domain.errors import AttemptFenced, MisuseError, NonDeterminismError, PromiseFailed
from flows.domain.promise import describe_error
from flows.engine.blocks import has_open_block
from flows.engine.context import Context
from flows.engine.decision import Decision, Failed, Invocation, Journal, Rejected, Resolved, SetAside, Suspended
from flows.engine.history import History
from flows.engine.operation import Operation, Pending, StepFailed
from flows.engine.registry import AnyFunction
from flows.engine.shapes import load_args, result_shape


class Execution:
    """A durable function as it runs: an attempt from its top, and if it stays open the next one from where it waits.

    Calls that are new go to ``journal`` as they are made.
    """

    def __init__(self, durable_function: AnyFunction, invocation: Invocation, journal: Journal) -> None:
        policy = retry.from_json(invocation.retry) if invocation.retry else durable_function.retry
        self._function = durable_function.function
        self._journal = journal
        self._history = History(invocation, journal, policy)
        self._body: Any = None  # the generator or coroutine, while it is open
        self._awaited: object = None

    def run(self) -> Decision:
        """Run an attempt from the function's top.

        Raises only ``AttemptFenced``, from the journal, and what ends the process: ``KeyboardInterrupt``, and the
        ``SystemExit`` of a pool that stops it.
        """
        return self._decide(self._begin)

    def go_on(self, invocation: Invocation) -> Decision:
        """Run the next attempt from where the function waits; as ``run``. Only if it ``can_go_on``."""
        self._history.go_on(invocation)
        return self._decide(lambda: self._drive(_answer(self._body, self._awaited, self._history)))

    @property
    def is_open(self) -> bool:
        """True while the function waits, and neither ``with`` nor ``try`` is open in it: to close it runs nothing."""
        return self._body is not None

    @property
    def invocation(self) -> Invocation:
        """The attempt that this runs, or has run last."""
        return self._history.invocation

    def can_go_on(self, durable_function: AnyFunction, invocation: Invocation, journal: Journal) -> bool:
        """Return True if a replay would come to where the function waits.

        So it does in the next attempt of the same promise if all calls are on record and none has another outcome.
        """
        is_same = self._function is durable_function.function and self._journal is journal
        return self.is_open and is_same and self._history.is_continued_by(invocation)

    def close(self) -> None:
        """Close the function, if it waits."""
        body, self._body = self._body, None
        if body is not None:
            _close(body)

    def _begin(self) -> Any:
        result = self._function(Context(self._history), *load_args(self._function, self._history.invocation.args))
        if inspect.isgenerator(result) or inspect.iscoroutine(result):
            self._body = result
            return self._drive(lambda: self._body.send(None))
        if inspect.isawaitable(result):
            raise MisuseError(
                f"{_name(self._function)} returned {_kind(result)}; make it an `async def` and await inside it"
            )
        return result

    def _drive(self, answer: Callable[[], Any]) -> Any:
        """Run the generator or coroutine to its end, answering each operation that it yields."""
        while True:
            self._history.before_user_code()
            try:
                self._awaited = answer()
            except StopIteration as stop:
                return stop.value
            except RuntimeError as error:
                # What asyncio says when its own awaitables (sleep, gather, …) are used outside of a running loop.
                if "no running event loop" in str(error):
                    raise _foreign("an asyncio awaitable") from error
                raise
            answer = _answer(self._body, self._awaited, self._history)

    def _decide(self, act: Callable[[], Any]) -> Decision:
        history, waits = self._history, False
        try:
            value = act()
            history.check_complete()
            text = values.encode(result_shape(self._function).dump(value, "result"), "result")
        except Pending as pending:
            waits = True
            return Suspended(awaits=pending.awaits, first=pending.first)
        except StepFailed as step:
            return Failed(
                error=describe_error(step.cause),
                exception=step.cause,
                delay=step.delay,
                failures=history.invocation.failures,
            )
        except NonDeterminismError as error:
            return SetAside(note=str(error))
        except (AttemptFenced, KeyboardInterrupt):
            raise
        except SystemExit as error:
            # Negative: the pool ends this process. That is no outcome; the sweep finds the attempt lost.
            if isinstance(error.code, int) and error.code < 0:
                raise
            return _after_error(error, history)
        except BaseException as error:  # whatever else user code raises is the outcome of the attempt
            return _after_error(error, history)
        finally:
            history.end()
            if not waits or has_open_block(self._body):
                self.close()
        unfinished = history.unfinished()
        return Suspended(awaits=unfinished) if unfinished else Resolved(value=text)


class Runner:
    """Runs attempts one after the other. A function that waits stays open until the next, which may go on with it."""

    def __init__(self) -> None:
        self._open: Execution | None = None

    def run(self, durable_function: AnyFunction, invocation: Invocation, journal: Journal) -> Decision:
        """Run one attempt and return its decision; raises as ``Execution.run``."""
        execution, self._open = self._open, None
        if execution is not None and execution.can_go_on(durable_function, invocation, journal):
            decision = execution.go_on(invocation)
        else:
            if execution is not None:
                execution.close()
            execution = Execution(durable_function, invocation, journal)
            decision = execution.run()
        if execution.is_open:
            self._open = execution
        return decision

    @property
    def open(self) -> Execution | None:
        """The function that waits in here, if there is one."""
        return self._open

    def close(self) -> None:
        """Close the function that waits, if there is one: no attempt follows for now."""
        execution, self._open = self._open, None
        if execution is not None:
            execution.close()


def _after_error(error: BaseException, history: History) -> Decision:
    failures = history.invocation.failures + 1
    delay = history.delay_after(error, failures, history.invocation.id)
    described = describe_error(error)
    if isinstance(error, PromiseFailed) and error.raised_at != history.position:
        # Caught, answered by other calls, and raised again: a retry must not undo what was answered.
        del described["promises"]
    if delay is not None:
        return Failed(error=described, exception=error, delay=delay, failures=failures)
    unfinished = history.unfinished()
    return Suspended(awaits=unfinished) if unfinished else Rejected(error=described, exception=error)


def _answer(body: Any, operation: object, history: History) -> Callable[[], Any]:
    if not isinstance(operation, Operation) or operation.history is not history:
        return lambda: body.throw(_foreign(_kind(operation)))
    try:
        value = operation.advance()
    except NonDeterminismError:  # not for user code: the attempt ends here
        raise
    except Exception as error:  # the outcome of the operation belongs to the function that awaits it
        caught = error
        return lambda: body.throw(caught)
    return lambda: body.send(value)


def _foreign(what: str) -> MisuseError:
    return MisuseError(
        f"a durable function can only await operations of its own context, not {what}; "
        "put other work into a local step: `yield from ctx.run(function, …)`, or `await ctx.run(…)`"
    )


def _close(body: Generator[Any, Any, Any]) -> None:
    # The end of an attempt closes the function. Nobody can be answered or told any more, so what its clean-up awaits or
    # raises is dropped.
    with suppress(Exception):
        body.close()


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
