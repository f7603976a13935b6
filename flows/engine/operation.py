"""What is yielded or awaited. Each operation is one object, driven by ``yield from`` or by ``await``.

An operation takes its position, and with it the id of its promise, when it is made: in call order, from 0.
"""

import asyncio
import inspect
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flows.domain import values
from flows.domain.errors import PromiseFailed
from flows.domain.promise import State, describe_error, failure_of
from flows.engine.decision import Call, Checkpoint
from flows.engine.history import History


class Pending(BaseException):
    """Not an error: the operation waits for these promises, so the attempt ends here."""

    def __init__(self, awaits: tuple[str, ...]) -> None:
        super().__init__(awaits)
        self.awaits = awaits


class StepFailed(BaseException):
    """Not for user code: a local step raised and will be tried again, so the attempt ends here."""

    def __init__(self, cause: Exception, delay: timedelta) -> None:
        super().__init__(cause, delay)
        self.cause = cause
        self.delay = delay


class Operation:
    """Something to ``yield from`` or to ``await``."""

    def __init__(self, history: History, label: str) -> None:
        self.history = history
        self.label = label

    def __iter__(self) -> Generator["Operation", Any, Any]:  # noqa: PYI058 - `yield from` has a value
        return (yield self)

    __await__ = __iter__

    def start(self) -> None:
        """Make sure that what the operation needs is recorded."""

    def pending(self) -> tuple[str, ...]:
        """Return the ids of the promises that it waits for."""
        return ()

    def outcome(self) -> Any:
        """Return its value or raise its error; only once nothing is pending."""

    def advance(self) -> Any:
        """Return its value, raise its error, or raise ``Pending``."""
        self.start()
        if awaits := self.pending():
            raise Pending(awaits)
        return self.outcome()


class PromiseOperation(Operation):
    """An operation with a promise of its own."""

    def __init__(self, history: History, call: Call) -> None:
        super().__init__(history, f"ctx.{call.kind}({call.function!r})")
        self.call = call
        self.checkpoint: Checkpoint | None = None
        self._is_started = False
        history.unused[self] = self.label

    def start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self.history.unused.pop(self, None)
            self.checkpoint = self.history.recall(self.call)
            self.begin()

    def begin(self) -> None:
        """Record the call if the table does not have it yet."""
        if self.checkpoint is None:
            self.history.record(self.call)

    def pending(self) -> tuple[str, ...]:
        return () if self.checkpoint and self.checkpoint.state is not State.PENDING else (self.call.id,)

    def outcome(self) -> Any:
        assert self.checkpoint is not None
        failure = failure_of(self.checkpoint.id, self.checkpoint.state, self.checkpoint.error)
        if failure is not None:
            raise failure
        return self.checkpoint.value


class Detached(PromiseOperation):
    """Starts a call; its value is the id of the promise."""

    def pending(self) -> tuple[str, ...]:
        return ()

    def outcome(self) -> str:
        return self.call.id


class Future(Operation):
    """A call in flight. ``yield from future`` waits for it."""

    def __init__(self, invoked: PromiseOperation) -> None:
        super().__init__(invoked.history, invoked.label)
        self.id = invoked.call.id
        self._invoked = invoked

    def pending(self) -> tuple[str, ...]:
        return self._invoked.pending()

    def outcome(self) -> Any:
        return self._invoked.outcome()


class Invoke(PromiseOperation):
    """Starts a call; its value is the ``Future``."""

    def advance(self) -> Future:
        self.start()
        return Future(self)


class Run(PromiseOperation):
    """A local step: runs the function here and records its outcome."""

    def __init__(self, history: History, call: Call, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__(history, call)
        self._function = function
        self._args = args
        self._value: Any = None
        self._error: PromiseFailed | None = None

    def begin(self) -> None:
        if self.checkpoint is not None and self.checkpoint.state is not State.PENDING:
            return
        try:
            value = self._function(*self._args)
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
            text = values.encode(value, f"result of {self.call.function}")
        except Exception as error:  # whatever the step raises is its outcome
            self._fail(error)
        else:
            self._value = values.decode(text)
            self._record(state=State.RESOLVED, value=text, failures=self.checkpoint.failures if self.checkpoint else 0)

    def pending(self) -> tuple[str, ...]:
        return ()

    def outcome(self) -> Any:
        if self.checkpoint is not None and self.checkpoint.state is not State.PENDING:
            return super().outcome()
        if self._error is not None:
            raise self._error
        return self._value

    def _fail(self, error: Exception) -> None:
        failures = 1 + (self.checkpoint.failures if self.checkpoint else 0)
        delay = self.history.delay_after(error, failures, self.call.id)
        described = describe_error(error)
        if delay is not None:
            self._record(state=State.PENDING, error=described, failures=failures)
            raise StepFailed(error, delay)
        self._record(state=State.REJECTED, error=described, failures=failures)
        self._error = failure_of(self.call.id, State.REJECTED, described)

    def _record(self, **outcome: Any) -> None:
        self.history.record(replace(self.call, is_known=self.checkpoint is not None, **outcome))


class Gather(Operation):
    """Several operations at once; resumes when all have settled."""

    def __init__(self, history: History, operations: tuple[Operation, ...]) -> None:
        super().__init__(history, "ctx.gather(…)")
        self._operations = operations
        for operation in operations:
            history.unused.pop(operation, None)
        history.unused[self] = self.label

    def start(self) -> None:
        self.history.unused.pop(self, None)
        for operation in self._operations:
            operation.start()

    def pending(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(id for operation in self._operations for id in operation.pending()))

    def outcome(self) -> list[Any]:
        return [operation.outcome() for operation in self._operations]
