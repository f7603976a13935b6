"""Replay of one attempt: run the function against its checkpoints and return a decision as data."""

import inspect
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from flows.domain import retry, values
from flows.domain.errors import AttemptFenced, MisuseError, NonDeterminismError, PromiseFailed
from flows.domain.promise import describe_error
from flows.engine.context import Context
from flows.engine.decision import Decision, Failed, Invocation, Journal, Rejected, Resolved, SetAside, Suspended
from flows.engine.history import History
from flows.engine.operation import Operation, Pending, StepFailed
from flows.engine.registry import AnyFunction
from flows.engine.shapes import load_args, result_shape


def replay(durable_function: AnyFunction, invocation: Invocation, journal: Journal) -> Decision:
    """Run one attempt of ``durable_function``.

    Calls that are new go to ``journal`` as they are made. Raises only ``AttemptFenced``, from the journal, and what
    ends the process: ``KeyboardInterrupt``, and the ``SystemExit`` of a pool that stops it.
    """
    policy = retry.from_json(invocation.retry) if invocation.retry else durable_function.retry
    history = History(invocation, journal, policy)
    try:
        value = _run(durable_function.function, history)
        history.check_complete()
        text = values.encode(result_shape(durable_function.function).dump(value, "result"), "result")
    except Pending as pending:
        return Suspended(awaits=pending.awaits, first=pending.first)
    except StepFailed as step:
        return Failed(
            error=describe_error(step.cause), exception=step.cause, delay=step.delay, failures=invocation.failures
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
    unfinished = history.unfinished()
    return Suspended(awaits=unfinished) if unfinished else Resolved(value=text)


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


def _run(function: Callable[..., Any], history: History) -> Any:
    result = function(Context(history), *load_args(function, history.invocation.args))
    if inspect.isgenerator(result) or inspect.iscoroutine(result):
        return _drive(result, history)
    if inspect.isawaitable(result):
        raise MisuseError(f"{_name(function)} returned {_kind(result)}; make it an `async def` and await inside it")
    return result


def _drive(body: Any, history: History) -> Any:
    """Run a generator or coroutine to its end, answering each operation that it yields."""
    answer: Callable[[], Any] = lambda: body.send(None)  # noqa: E731 - the next step, chosen by the last answer
    try:
        while True:
            history.before_user_code()
            try:
                operation = answer()
            except StopIteration as stop:
                return stop.value
            except RuntimeError as error:
                # What asyncio says when its own awaitables (sleep, gather, …) are used outside of a running loop.
                if "no running event loop" in str(error):
                    raise _foreign("an asyncio awaitable") from error
                raise
            answer = _answer(body, operation, history)
    finally:
        history.end()
        _close(body)


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
