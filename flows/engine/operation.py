"""What is yielded or awaited. Each operation is one object, driven by ``yield from`` or by ``await``.

An operation takes its position, and with it the id of its promise, when it is made: in call order, from 0.
"""

import asyncio
import inspect
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from flows.domain import values
from flows.domain.errors import InvalidInputError, PromiseFailed
from flows.domain.promise import State, describe_error, failure_of
from flows.domain.retry import RetryPolicy
from flows.engine.decision import Call, Checkpoint, Interrupted
from flows.engine.history import History
from flows.engine.shapes import PLAIN, Shape

R_co = TypeVar("R_co", covariant=True)

# After the database went away under an atomic step; that is no failure of the step, and not counted as one.
INTERRUPTED_DELAY = timedelta(seconds=1)


class Pending(BaseException):
    """Not an error: the operation waits for these promises (see ``Suspended``), so the attempt ends here."""

    def __init__(self, awaits: tuple[str, ...], *, first: bool) -> None:
        super().__init__(awaits)
        self.awaits = awaits
        self.first = first


class StepFailed(BaseException):
    """Not for user code: a local step raised and will be tried again, so the attempt ends here."""

    def __init__(self, cause: Exception, delay: timedelta) -> None:
        super().__init__(cause, delay)
        self.cause = cause
        self.delay = delay


class Operation(Generic[R_co]):
    """Something to ``yield from`` or to ``await``."""

    def __init__(self, history: History) -> None:
        self.history = history

    def __iter__(self) -> Generator["Operation[Any]", Any, R_co]:
        value: R_co = yield self
        return value

    __await__ = __iter__

    @property
    def label(self) -> str:
        """What users write for it, told in errors."""
        raise NotImplementedError

    def start(self) -> None:
        """Make sure that what the operation needs is recorded."""

    def pending(self) -> tuple[str, ...]:
        """Return the ids of the promises that it waits for; none once it has an outcome."""
        return ()

    def awaited(self) -> tuple[str, ...]:
        """Return the ids of all promises that it is about."""
        return ()

    def unsettled(self) -> tuple[str, ...]:
        """Return those of them that are pending, whether or not it still waits for them."""
        return self.pending()

    @property
    def first(self) -> bool:
        """True if it may have an outcome before all that is pending has settled."""
        return False

    def settled_at(self) -> float:
        """Return when it got its outcome, in epoch seconds; 0 for what never waits."""
        return 0.0

    def outcome(self) -> R_co:
        """Return its value or raise its error; only once nothing is pending."""
        raise NotImplementedError

    def advance(self) -> Any:
        """Return its value, raise its error, or raise ``Pending``."""
        self.start()
        if awaits := self.pending():
            raise Pending(awaits, first=self.first)
        self.history.reached(self.awaited())
        try:
            return self.outcome()
        except PromiseFailed as failure:
            failure.raised_at = self.history.position
            raise


class PromiseOperation(Operation[R_co]):
    """An operation with a promise of its own. ``shape`` is that of its value, ``method`` what users write for it."""

    def __init__(self, history: History, call: Call, shape: Shape = PLAIN, *, method: str = "") -> None:
        super().__init__(history)
        self.call = call
        self.shape = shape
        self._method = method or call.kind
        self._is_started = False
        history.unused[self] = None

    @property
    def label(self) -> str:
        return f"ctx.{self._method}({self.call.function!r})"

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What is on record of it, as this attempt has found it."""
        return self.history.checkpoints.get(self.call.position)

    def start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self.history.unused.pop(self, None)
            self.history.recall(self.call)
            self.begin()

    def begin(self) -> None:
        """Record the call if the table does not have it yet."""
        if self.checkpoint is None:
            self.history.record(self.call)

    def pending(self) -> tuple[str, ...]:
        checkpoint = self.checkpoint
        return () if checkpoint and checkpoint.state is not State.PENDING else (self.call.id,)

    def awaited(self) -> tuple[str, ...]:
        return (self.call.id,)

    def settled_at(self) -> float:
        return (self.checkpoint and self.checkpoint.settled_at) or 0.0

    def outcome(self) -> R_co:
        checkpoint = self.checkpoint
        assert checkpoint is not None
        failure = failure_of(checkpoint.id, checkpoint.state, checkpoint.error)
        if failure is not None:
            raise failure
        value: R_co = self.shape.load(values.decode(checkpoint.value or "null"), f"value of {self.call.id}")
        return value


class Sleep(PromiseOperation[None]):
    """A timer. One that begins must not be over already."""

    def begin(self) -> None:
        until = self.call.timeout
        if self.checkpoint is None and isinstance(until, datetime) and until <= (now := self.history.now()):
            raise InvalidInputError("until", f"{until.isoformat()} is in the past; it is {now.isoformat()} now")
        super().begin()


class Detached(PromiseOperation[str]):
    """Starts a call; its value is the id of the promise."""

    def pending(self) -> tuple[str, ...]:
        return ()

    def outcome(self) -> str:
        return self.call.id


class Future(Operation[R_co]):
    """A call in flight. ``yield from future`` waits for it; ``id`` is that of its promise."""

    def __init__(self, invoked: PromiseOperation[R_co]) -> None:
        super().__init__(invoked.history)
        self.id = invoked.call.id
        self._invoked = invoked

    @property
    def label(self) -> str:
        return self._invoked.label

    def pending(self) -> tuple[str, ...]:
        return self._invoked.pending()

    def awaited(self) -> tuple[str, ...]:
        return self._invoked.awaited()

    def settled_at(self) -> float:
        return self._invoked.settled_at()

    def outcome(self) -> R_co:
        return self._invoked.outcome()


class Invoke(Operation[Future[R_co]]):
    """Starts a call; its value is the ``Future``."""

    def __init__(self, invoked: PromiseOperation[R_co]) -> None:
        super().__init__(invoked.history)
        self._invoked = invoked

    @property
    def label(self) -> str:
        return self._invoked.label

    def start(self) -> None:
        self._invoked.start()

    def outcome(self) -> Future[R_co]:
        return Future(self._invoked)


class Run(PromiseOperation[R_co]):
    """A local step: runs the function here and records its outcome."""

    def __init__(
        self,
        history: History,
        call: Call,
        step: Callable[[], Any],
        shape: Shape = PLAIN,
        policy: RetryPolicy | None = None,
        *,
        method: str = "",
    ) -> None:
        super().__init__(history, call, shape, method=method)
        self._step = step
        self._policy = policy
        self._value: Any = None
        self._error: PromiseFailed | None = None

    def begin(self) -> None:
        if self.checkpoint is not None and self.checkpoint.state is not State.PENDING:
            return
        try:
            call = self.perform()
        except Interrupted as interruption:
            raise StepFailed(interruption, INTERRUPTED_DELAY) from interruption
        except Exception as error:  # whatever the step raises is its outcome
            self._fail(error)
        else:
            self._value = values.decode(call.value or "null")

    def perform(self) -> Call:
        """Run the step and record its value; return the record."""
        call = self.resolved()
        self.history.record(call)
        return call

    def resolved(self) -> Call:
        """Run the step and return its record, not written yet."""
        self.history.before_user_code()
        value = self._step()
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        field = f"result of {self.call.function}"
        text = values.encode(self.shape.dump(value, field), field)
        return self._record(
            state=State.RESOLVED, value=text, failures=self.checkpoint.failures if self.checkpoint else 0
        )

    def pending(self) -> tuple[str, ...]:
        return ()

    def outcome(self) -> R_co:
        if self.checkpoint is not None and self.checkpoint.state is not State.PENDING:
            return super().outcome()
        if self._error is not None:
            raise self._error
        value: R_co = self.shape.load(self._value, f"value of {self.call.id}")
        return value

    def _fail(self, error: Exception) -> None:
        failures = 1 + (self.checkpoint.failures if self.checkpoint else 0)
        delay = self.history.delay_after(error, failures, self.call.id, self._policy)
        described = describe_error(error)
        if delay is not None:
            self.history.record(self._record(state=State.PENDING, error=described, failures=failures))
            raise StepFailed(error, delay)
        self.history.record(self._record(state=State.REJECTED, error=described, failures=failures))
        self._error = failure_of(self.call.id, State.REJECTED, described)

    def _record(self, **outcome: Any) -> Call:
        return self.call._replace(is_known=self.checkpoint is not None, **outcome)


class Atomic(Run[R_co]):
    """A local step in one transaction with its record."""

    def perform(self) -> Call:
        return self.history.commit_with(self.resolved)


class Gather(Operation[tuple[R_co, ...]]):
    """Several operations at once; resumes when all have settled."""

    label = "ctx.gather(…)"

    def __init__(self, history: History, operations: Sequence[Operation[R_co]]) -> None:
        super().__init__(history)
        self._operations = operations
        _adopt(self, operations)

    def start(self) -> None:
        self.history.unused.pop(self, None)
        for operation in self._operations:
            operation.start()

    def pending(self) -> tuple[str, ...]:
        return _ids(operation.pending() for operation in self._operations)

    def awaited(self) -> tuple[str, ...]:
        return _ids(operation.awaited() for operation in self._operations)

    def unsettled(self) -> tuple[str, ...]:
        return _ids(operation.unsettled() for operation in self._operations)

    @property
    def first(self) -> bool:
        return any(operation.first for operation in self._operations if operation.pending())

    def settled_at(self) -> float:
        return max((operation.settled_at() for operation in self._operations), default=0.0)

    def outcome(self) -> tuple[R_co, ...]:
        outcomes, failures = [], []
        for operation in self._operations:
            try:
                outcomes.append(operation.outcome())
            except PromiseFailed as failure:
                failures.append(failure)
        if failures:
            also_failed = [id for failure in failures for id in (failure.promise_id, *failure.also_failed)][1:]
            failures[0].also_failed = tuple(also_failed)
            raise failures[0]
        return tuple(outcomes)


class Race(Operation[R_co]):
    """Several operations at once; resumes when the first has settled, and records which one that was."""

    label = "ctx.race(…)"

    def __init__(
        self, history: History, call: Call, operations: Sequence[Operation[R_co]], *, cancel_losers: bool
    ) -> None:
        super().__init__(history)
        self._call = call
        self._operations = operations
        self._cancels_losers = cancel_losers
        self._winner: Operation[R_co] | None = None
        self._is_started = False
        _adopt(self, operations)

    def start(self) -> None:
        if self._is_started:
            return
        self._is_started = True
        self.history.unused.pop(self, None)
        for operation in self._operations:
            operation.start()
        if checkpoint := self.history.recall(self._call):
            self._winner = self._operations[values.decode(checkpoint.value or "null")]

    def pending(self) -> tuple[str, ...]:
        if self._winner is not None:  # pending again, if it was rejected and then retried
            return self._winner.pending()
        is_decided = not all(operation.pending() for operation in self._operations)
        return () if is_decided else _ids(operation.pending() for operation in self._operations)

    def awaited(self) -> tuple[str, ...]:
        return _ids(operation.awaited() for operation in self._operations)

    def unsettled(self) -> tuple[str, ...]:
        return _ids(operation.unsettled() for operation in self._operations)

    @property
    def first(self) -> bool:
        return self._winner is None or self._winner.first

    def settled_at(self) -> float:
        return min(operation.settled_at() for operation in self._operations if not operation.pending())

    def outcome(self) -> R_co:
        if self._winner is None:
            settled = [each for each in self._operations if not each.pending()]
            self._winner = min(settled, key=lambda each: each.settled_at())
            # First: what is canceled without the record is a loser again on replay, for it settled later.
            self._cancel_losers()
            index = values.encode(self._operations.index(self._winner), "winner")
            self.history.record(self._call._replace(state=State.RESOLVED, value=index))
        return self._winner.outcome()

    def _cancel_losers(self) -> None:
        if self._cancels_losers:
            self.history.cancel(_ids(each.unsettled() for each in self._operations if each is not self._winner))


def _adopt(parent: Operation[Any], operations: Iterable[Operation[Any]]) -> None:
    """Take over from ``operations`` the duty of being awaited."""
    for operation in operations:
        parent.history.unused.pop(operation, None)
    parent.history.unused[parent] = None


def _ids(of_each: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(id for ids in of_each for id in ids))
