"""What a durable function may ask for: its first parameter."""

from collections.abc import Callable
from typing import Any

from flows.domain import ids, values
from flows.domain.durations import Duration, to_duration, to_timeout
from flows.domain.errors import MisuseError
from flows.domain.promise import Kind
from flows.engine.decision import Call
from flows.engine.history import History
from flows.engine.operation import Detached, Gather, Invoke, Operation, PromiseOperation, Run
from flows.engine.registry import DurableFunction, registry


class Context:
    """The durable side of a running function; its first parameter.

    Every operation must be awaited at once with ``yield from`` (generators) or ``await`` (``async def``).
    """

    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def id(self) -> str:
        """The id of the promise that this function settles."""
        return self._history.invocation.id

    @property
    def attempt(self) -> int:
        """A number that grows with each attempt; a resume is one, too."""
        return self._history.invocation.attempt

    def rpc(
        self, function: str | DurableFunction, *args: Any, target: str | None = None, timeout: Duration | None = None
    ) -> Operation:
        """Call a durable function and wait for its value.

        ``function`` is its name (then ``target``, default this group, says where) or the function itself. ``timeout``
        bounds the call; it never outlives this one. Raises ``PromiseRejected``, ``PromiseTimedOut`` or
        ``PromiseCanceled``.
        """
        return PromiseOperation(self._history, self._call(Kind.RPC, function, args, target, timeout))

    def rfi(
        self, function: str | DurableFunction, *args: Any, target: str | None = None, timeout: Duration | None = None
    ) -> Operation:
        """Start a durable function and get a ``Future`` to wait for later. Arguments as for ``rpc``."""
        return Invoke(self._history, self._call(Kind.RFI, function, args, target, timeout))

    def detached(
        self, function: str | DurableFunction, *args: Any, target: str | None = None, timeout: Duration | None = None
    ) -> Operation:
        """Start a durable function that nobody waits for and get the id of its promise. Arguments as for ``rpc``."""
        return Detached(self._history, self._call(Kind.DETACHED, function, args, target, timeout))

    def run(self, function: Callable[..., Any], *args: Any) -> Operation:
        """Run a plain function here, once: its JSON value is recorded, and a replay gets the record.

        If it raises, it is tried again as this function's retry policy says; then ``PromiseRejected`` is raised here.
        The arguments are not stored.
        """
        name = getattr(function, "__name__", type(function).__name__)
        position = self._history.next_position()
        call = Call(
            id=ids.child_id(self.id, position),
            position=position,
            kind=Kind.RUN,
            group=self._history.invocation.group,
            function=name,
            args="[]",
            digest="",
        )
        return Run(self._history, call, function, args)

    def sleep(self, duration: Duration) -> Operation:
        """Wait for ``duration`` (seconds or timedelta) from now without holding a worker."""
        wait = to_duration(duration)
        position = self._history.next_position()
        text = values.encode([wait.total_seconds()], "duration")
        call = Call(
            id=ids.child_id(self.id, position),
            position=position,
            kind=Kind.TIMER,
            group=self._history.invocation.group,
            function="sleep",
            args=text,
            digest=values.digest([wait.total_seconds()]),
            timeout=wait,
        )
        return PromiseOperation(self._history, call)

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
        return Gather(self._history, operations)

    def _call(
        self,
        kind: Kind,
        function: str | DurableFunction,
        args: tuple[Any, ...],
        target: str | None,
        timeout: Duration | None,
    ) -> Call:
        if isinstance(function, DurableFunction):
            name, group = function.name, function.group
        else:
            name, group = ids.check_function(function), self._history.invocation.group
        if target is not None:
            group = ids.parse_target(target)
        # Code of another project is not known here; the call waits for a worker that knows it.
        if known := registry.find(group, name):
            known.check_args(args)
            timeout = timeout if timeout is not None else known.timeout
        text = values.encode(list(args), "args")
        position = self._history.next_position()
        invocation = self._history.invocation
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
            timeout=to_timeout(timeout) if timeout is not None else None,
        )
