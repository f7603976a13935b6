"""What a durable function may ask for. Each operation is one object, driven by ``yield from`` or by ``await``.

Operations take their position, and with it the id of their promise, when they are made: in call order, from 0.
"""

import asyncio
import inspect
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any

from flows.domain import ids, values
from flows.domain.errors import InvalidInputError, MisuseError, NonDeterminismError, PromiseFailed
from flows.domain.promise import Kind, State, describe_error, failure_of
from flows.domain.retry import RetryPolicy
from flows.engine.decision import Call, Checkpoint, Invocation, Journal
from flows.engine.registry import DurableFunction, registry


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

    def __init__(self, context: "Context", label: str) -> None:
        self.context = context
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

    def __init__(self, context: "Context", call: Call) -> None:
        super().__init__(context, f"ctx.{call.kind}({call.function!r})")
        self.call = call
        self.checkpoint: Checkpoint | None = None
        self._is_started = False
        context.unused[call.position] = self

    def start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self.context.unused.pop(self.call.position, None)
            self.checkpoint = self.context.recall(self.call)
            self.begin()

    def begin(self) -> None:
        """Record the call if the table does not have it yet."""
        if self.checkpoint is None:
            self.context.record(self.call)

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
        super().__init__(invoked.context, invoked.label)
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

    def __init__(self, context: "Context", call: Call, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__(context, call)
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
            self._record(state=State.RESOLVED, value=text)

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
        delay = self.context.delay_after(error, failures, self.call.id)
        described = describe_error(error)
        if delay is not None:
            self._record(state=State.PENDING, error=described, failures=failures)
            raise StepFailed(error, delay)
        self._record(state=State.REJECTED, error=described, failures=failures)
        self._error = failure_of(self.call.id, State.REJECTED, described)

    def _record(self, *, state: State, value: str | None = None, error: Any = None, failures: int = 0) -> None:
        call = self.call
        self.context.record(
            Call(
                id=call.id,
                position=call.position,
                kind=call.kind,
                group=call.group,
                function=call.function,
                args=call.args,
                digest=call.digest,
                state=state,
                value=value,
                error=error,
                failures=failures,
                is_known=self.checkpoint is not None,
            )
        )


class Gather(Operation):
    """Several operations at once; resumes when all have settled."""

    def __init__(self, context: "Context", operations: tuple[Operation, ...]) -> None:
        super().__init__(context, "ctx.gather(…)")
        self._operations = operations

    def start(self) -> None:
        for operation in self._operations:
            operation.start()

    def pending(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(id for operation in self._operations for id in operation.pending()))

    def outcome(self) -> list[Any]:
        return [operation.outcome() for operation in self._operations]


class Context:
    """The durable side of a running function; its first parameter.

    Every operation must be awaited at once with ``yield from`` (generators) or ``await`` (``async def``).
    """

    def __init__(self, invocation: Invocation, journal: Journal, policy: RetryPolicy) -> None:
        self._invocation = invocation
        self._journal = journal
        self._policy = policy
        self._checkpoints = {checkpoint.position: checkpoint for checkpoint in invocation.checkpoints}
        self._position = 0
        self.unused: dict[int, Operation] = {}
        self.created: list[Call] = []

    @property
    def id(self) -> str:
        """The id of the promise that this function settles."""
        return self._invocation.id

    @property
    def attempt(self) -> int:
        """A number that grows with each attempt; a resume is one, too."""
        return self._invocation.attempt

    def rpc(
        self, function: str | DurableFunction, *args: Any, target: str | None = None, timeout: timedelta | None = None
    ) -> Operation:
        """Call a durable function and wait for its value.

        ``function`` is its name (then ``target``, default this group, says where) or the function itself. ``timeout``
        bounds the call; it never outlives this one. Raises ``PromiseRejected``, ``PromiseTimedOut`` or
        ``PromiseCanceled``.
        """
        return PromiseOperation(self, self._call(Kind.RPC, function, args, target, timeout))

    def rfi(
        self, function: str | DurableFunction, *args: Any, target: str | None = None, timeout: timedelta | None = None
    ) -> Operation:
        """Start a durable function and get a ``Future`` to wait for later. Arguments as for ``rpc``."""
        return Invoke(self, self._call(Kind.RFI, function, args, target, timeout))

    def detached(
        self, function: str | DurableFunction, *args: Any, target: str | None = None, timeout: timedelta | None = None
    ) -> Operation:
        """Start a durable function that nobody waits for and get the id of its promise. Arguments as for ``rpc``."""
        return Detached(self, self._call(Kind.DETACHED, function, args, target, timeout))

    def run(self, function: Callable[..., Any], *args: Any) -> Operation:
        """Run a plain function here, once: its JSON value is recorded, and a replay gets the record.

        If it raises, it is tried again as this function's retry policy says; then ``PromiseRejected`` is raised here.
        The arguments are not stored.
        """
        name = getattr(function, "__name__", type(function).__name__)
        position = self._next_position()
        call = Call(
            id=ids.child_id(self.id, position),
            position=position,
            kind=Kind.RUN,
            group=self._invocation.group,
            function=name,
            args="[]",
            digest="",
        )
        return Run(self, call, function, args)

    def sleep(self, duration: float | timedelta) -> Operation:
        """Wait for ``duration`` (seconds or timedelta) from now without holding a worker."""
        wait = duration if isinstance(duration, timedelta) else timedelta(seconds=duration)
        if wait < timedelta(0):
            raise InvalidInputError("duration", f"must not be negative, and is {wait.total_seconds()} s")
        position = self._next_position()
        text = values.encode([wait.total_seconds()], "duration")
        call = Call(
            id=ids.child_id(self.id, position),
            position=position,
            kind=Kind.TIMER,
            group=self._invocation.group,
            function="sleep",
            args=text,
            digest=values.digest([wait.total_seconds()]),
            timeout=wait,
        )
        return PromiseOperation(self, call)

    def gather(self, *operations: Operation) -> Operation:
        """Wait for all of ``operations`` (calls or futures) and get their values in order.

        If any failed, the first failure in the given order is raised, once all have settled.
        """
        for operation in operations:
            if not isinstance(operation, Operation):
                raise MisuseError(
                    f"ctx.gather() takes calls and futures of its context, not {type(operation).__name__}; "
                    "write ctx.gather(ctx.rpc(…), ctx.rpc(…))"
                )
        return Gather(self, operations)

    def recall(self, call: Call) -> Checkpoint | None:
        """Return the record of ``call``; raise ``NonDeterminismError`` if another call stands in its place."""
        checkpoint = self._checkpoints.get(call.position)
        if checkpoint is None:
            return None
        recorded = (checkpoint.id, checkpoint.kind, checkpoint.group, checkpoint.function, checkpoint.digest)
        if recorded != (call.id, call.kind, call.group, call.function, call.digest):
            raise NonDeterminismError(
                f"call {call.position} of {self.id} is recorded as {_describe(checkpoint)}, "
                f"but the function now makes {_describe(call)}"
            )
        return checkpoint

    def record(self, call: Call) -> None:
        """Hand a call to the journal."""
        self.created.append(call)
        self._journal.record(call)

    def delay_after(self, error: BaseException, failures: int, promise_id: str) -> timedelta | None:
        """Return how long to wait before trying again, or None if ``error`` is final."""
        # A failed promise, or wrong use, would replay to the same failure.
        if isinstance(error, PromiseFailed | MisuseError | InvalidInputError):
            return None
        return self._policy.delay(failures, promise_id)

    def unfinished(self) -> tuple[str, ...]:
        """Return the ids of the pending children that the function must outlive; detached ones are exempt."""
        known = (c.id for c in self._checkpoints.values() if c.state is State.PENDING and _is_owned(c.kind))
        new = (call.id for call in self.created if call.state is State.PENDING and _is_owned(call.kind))
        return tuple(dict.fromkeys([*known, *new]))

    def check_complete(self) -> None:
        """Raise unless every operation was awaited and every recorded call was made again."""
        if self.unused:
            label = next(iter(self.unused.values())).label
            raise MisuseError(
                f"{label} was made but never awaited; write `yield from {label}`, or `await {label}` in an async def"
            )
        missing = [checkpoint for position, checkpoint in self._checkpoints.items() if position >= self._position]
        if missing:
            raise NonDeterminismError(
                f"call {missing[0].position} of {self.id} is recorded as {_describe(missing[0])}, "
                "but the function now ends before it"
            )

    def _call(
        self,
        kind: Kind,
        function: str | DurableFunction,
        args: tuple[Any, ...],
        target: str | None,
        timeout: timedelta | None,
    ) -> Call:
        if isinstance(function, DurableFunction):
            name, group = function.name, function.group
        else:
            name, group = ids.check_function(function), self._invocation.group
        if target is not None:
            group = ids.parse_target(target)
        # Code of another project is not known here; the call waits for a worker that knows it.
        if known := registry.find(group, name):
            known.check_args(args)
            timeout = timeout if timeout is not None else known.timeout
        if timeout is not None and timeout <= timedelta(0):
            raise InvalidInputError("timeout", f"must be positive, and is {timeout.total_seconds()} s")
        text = values.encode(list(args), "args")
        position = self._next_position()
        invocation = self._invocation
        if kind is Kind.DETACHED:
            promise_id = ids.detached_id(invocation.root_id, invocation.id, position)
        else:
            promise_id = ids.child_id(invocation.id, position)
        return Call(
            id=promise_id,
            position=position,
            kind=kind,
            group=group,
            function=name,
            args=text,
            digest=values.digest(args),
            timeout=timeout,
        )

    def _next_position(self) -> int:
        position = self._position
        self._position += 1
        return position


def _is_owned(kind: Kind) -> bool:
    return kind in (Kind.RPC, Kind.RFI, Kind.TIMER)


def _describe(call: Call | Checkpoint) -> str:
    return f"{call.kind} {call.group}.{call.function} (arguments {call.digest[:8] or 'not stored'})"
