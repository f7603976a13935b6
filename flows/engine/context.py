"""What a durable function may ask for: its first parameter."""

import inspect
import logging
import random
from collections.abc import Callable, Coroutine, Generator, Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack, overload
from uuid import UUID, uuid4

from flows.domain import ids, values
from flows.domain.durations import Duration, Timeout, check_aware, to_duration, to_timeout
from flows.domain.errors import MisuseError
from flows.domain.promise import Kind, State
from flows.domain.retry import RetryPolicy, check_policy
from flows.engine.decision import Call
from flows.engine.history import History
from flows.engine.operation import (
    Atomic,
    Detached,
    Future,
    Gather,
    Invoke,
    Operation,
    PromiseOperation,
    Race,
    Run,
    Sleep,
)
from flows.engine.registry import DurableFunction, Returns
from flows.engine.requests import Options, request, shape_for
from flows.engine.shapes import Shape, result_shape, shape_of

R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Ts = TypeVarTuple("Ts")

# What a durable function that is a generator returns: `def fulfil(ctx: Context, order: Order) -> Flow[str]`.
Flow = Generator[Operation[Any], Any, R]

if TYPE_CHECKING:
    LoggerAdapter = logging.LoggerAdapter[logging.Logger]
else:
    LoggerAdapter = logging.LoggerAdapter


class Context:
    """The durable side of a running function; its first parameter.

    Every operation must be awaited at once with ``yield from`` (generators) or ``await`` (``async def``).

    Calls take a durable function, then its arguments, by position; mypy checks these and knows the result. Or they take
    its name, unchecked. Their options: ``target`` says where the call goes (default: the function's group, or this one
    for a name); ``timeout`` how long it may take, or until when, and never longer than this call; ``retry`` replaces
    the function's policy; ``tags`` are strings by name, shown beside it.
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

    @property
    def deadline(self) -> datetime:
        """When this call times out."""
        return self._history.invocation.deadline_at

    @property
    def log(self) -> "Log":
        """A logger that is silent while the function replays what it has done before; named ``<group>.<function>``."""
        return Log(self._history)

    @overload
    def rpc(
        self, function: Callable[["Context", *Ts], Returns[R]], *args: *Ts, **options: Unpack[Options]
    ) -> Operation[R]: ...
    @overload
    def rpc(self, function: str, *args: Any, **options: Unpack[Options]) -> Operation[Any]: ...
    def rpc(  # type: ignore[misc]  # mypy takes *args: Any for less than *args: *Ts
        self, function: Any, *args: Any, **options: Unpack[Options]
    ) -> Operation[Any]:
        """Call a durable function and wait for its value.

        Raises ``PromiseRejected``, ``PromiseTimedOut`` or ``PromiseCanceled`` if it has none.
        """
        call, shape = self._call(Kind.RPC, function, args, options)
        return PromiseOperation(self._history, call, shape)

    @overload
    def rfi(
        self, function: Callable[["Context", *Ts], Returns[R]], *args: *Ts, **options: Unpack[Options]
    ) -> Operation[Future[R]]: ...
    @overload
    def rfi(self, function: str, *args: Any, **options: Unpack[Options]) -> Operation[Future[Any]]: ...
    def rfi(  # type: ignore[misc]  # mypy takes *args: Any for less than *args: *Ts
        self, function: Any, *args: Any, **options: Unpack[Options]
    ) -> Operation[Future[Any]]:
        """Start a durable function and get a ``Future`` to wait for later."""
        call, shape = self._call(Kind.RFI, function, args, options)
        return Invoke(PromiseOperation(self._history, call, shape))

    @overload
    def detached(
        self, function: Callable[["Context", *Ts], Returns[Any]], *args: *Ts, **options: Unpack[Options]
    ) -> Operation[str]: ...
    @overload
    def detached(self, function: str, *args: Any, **options: Unpack[Options]) -> Operation[str]: ...
    def detached(  # type: ignore[misc]  # mypy takes *args: Any for less than *args: *Ts
        self, function: Any, *args: Any, **options: Unpack[Options]
    ) -> Operation[str]:
        """Start a durable function that nobody waits for and get the id of its promise; its deadline is its own."""
        call, _ = self._call(Kind.DETACHED, function, args, options)
        return Detached(self._history, call)

    @overload
    def run(
        self, function: Callable[[*Ts], Coroutine[Any, Any, R]], *args: *Ts, retry: RetryPolicy | None = None
    ) -> Operation[R]: ...
    @overload
    def run(self, function: Callable[[*Ts], R], *args: *Ts, retry: RetryPolicy | None = None) -> Operation[R]: ...
    def run(  # type: ignore[misc]  # as for rpc
        self, function: Any, *args: Any, retry: RetryPolicy | None = None
    ) -> Operation[Any]:
        """Run a plain function here, once: its value is recorded, and a replay gets the record.

        If it raises, it is tried again as ``retry`` says, or this function's policy; then ``PromiseRejected`` is raised
        here. The arguments are not stored.
        """
        _check_step("run", function, retry)
        call = self._step(_name(function))
        return Run(self._history, call, lambda: function(*args), result_shape(function), retry)

    def atomic(self, function: Callable[[*Ts], R], *args: *Ts, retry: RetryPolicy | None = None) -> Operation[R]:
        """Run a plain function in one database transaction with its record: what it writes happens exactly once.

        Otherwise as ``run``. The transaction is that of the ``DATABASE`` setting's alias.
        """
        _check_step("atomic", function, retry)
        if inspect.iscoroutinefunction(function):
            raise MisuseError(
                f"ctx.atomic() cannot run {_name(function)}, an async def: transactions belong to one thread; "
                "make it a plain function"
            )
        call = self._step(_name(function))
        return Atomic(self._history, call, lambda: function(*args), result_shape(function), retry, method="atomic")

    def now(self) -> Operation[datetime]:
        """Get the time of the database's clock, aware, and the same again on replay."""
        return Run(self._history, self._step("now"), self._history.now, shape_of(datetime))

    def uuid(self) -> Operation[UUID]:
        """Get a random UUID, and the same again on replay."""
        return Run(self._history, self._step("uuid"), uuid4, shape_of(UUID))

    def random(self) -> Operation[float]:
        """Get a random number from 0 (included) to 1 (excluded), and the same again on replay."""
        return Run(self._history, self._step("random"), random.random)

    def patched(self, name: str) -> bool:
        """Return True for flows that come here for the first time, False for those that had passed before it was there.

        For changing a function whose flows are in flight: ``if ctx.patched("charge-vat"): …``. Needs no ``yield from``.
        """

        def mark(position: int) -> Call:
            args = values.encode([name], "patched")
            return self._child(
                position, Kind.RUN, "patched", args, values.digest([name]), state=State.RESOLVED, value="null"
            )

        return self._history.is_patched(mark)

    def sleep(self, until: Duration | datetime) -> Operation[None]:
        """Wait, without holding a worker, for so many seconds, for a timedelta, or until an aware datetime."""
        wait = check_aware(until, "until") if isinstance(until, datetime) else to_duration(until)
        told = wait.isoformat() if isinstance(wait, datetime) else wait.total_seconds()
        call = self._child(
            self._history.next_position(),
            Kind.TIMER,
            "sleep",
            values.encode([told], "until"),
            values.digest([told]),
            timeout=wait,
        )
        return Sleep(self._history, call, method="sleep")

    def promise(
        self, name: str, data: Any = None, *, timeout: Timeout | None = None, tags: Mapping[str, str] | None = None
    ) -> Operation[Future[Any]]:
        """Make a promise that is settled from outside, by ``flows.resolve`` or ``flows.reject``; get its ``Future``.

        ``name`` says what is waited for, such as ``"approval"``; ``data``, JSON, is for whoever settles it. The future
        has the ``id`` to tell them. Awaiting it raises ``PromiseTimedOut`` after ``timeout``.
        """
        call = self._child(
            self._history.next_position(),
            Kind.EXTERNAL,
            ids.check_function(name, "name"),
            values.encode([data], "data"),
            values.digest([data]),
            timeout=to_timeout(timeout) if timeout is not None else None,
            tags=ids.check_tags(tags or {}),
        )
        return Invoke(PromiseOperation(self._history, call, method="promise"))

    @overload
    def gather(self, first: Operation[A], second: Operation[B], /) -> Operation[tuple[A, B]]: ...
    @overload
    def gather(
        self, first: Operation[A], second: Operation[B], third: Operation[C], /
    ) -> Operation[tuple[A, B, C]]: ...
    @overload
    def gather(self, *operations: Operation[R]) -> Operation[tuple[R, ...]]: ...
    def gather(self, *operations: Operation[Any]) -> Operation[Any]:
        """Wait for all of ``operations`` (calls or futures) and get their values in order.

        If any failed, the first failure in the given order is raised, once all have settled.
        """
        _check_operations("gather", operations)
        return Gather(self._history, operations)

    @overload
    def race(self, first: Operation[A], second: Operation[B], /, *, cancel_losers: bool = True) -> Operation[A | B]: ...
    @overload
    def race(self, *operations: Operation[R], cancel_losers: bool = True) -> Operation[R]: ...
    def race(self, *operations: Operation[Any], cancel_losers: bool = True) -> Operation[Any]:
        """Wait for the first of ``operations`` (calls or futures) to settle and get its value, or its failure.

        The others are canceled, with all calls below them, unless ``cancel_losers`` is False.
        """
        _check_operations("race", operations)
        if not operations:
            raise MisuseError("ctx.race() of nothing would never end; give it at least one call or future")
        digest = values.digest([id for operation in operations for id in operation.awaited()])
        call = self._child(self._history.next_position(), Kind.RUN, "race", "[]", digest)
        return Race(self._history, call, operations, cancel_losers=cancel_losers)

    def _call(self, kind: Kind, function: object, args: Sequence[Any], options: Options) -> tuple[Call, Shape]:
        invocation = self._history.invocation
        fields = request(function, args, options, invocation.group)
        position = self._history.next_position()
        if kind is Kind.DETACHED:
            promise_id = ids.detached_id(invocation.root_id, invocation.id, position)
        else:
            promise_id = ids.child_id(invocation.id, position)
        return Call(id=promise_id, position=position, kind=kind, **fields), shape_for(function)

    def _step(self, name: str) -> Call:
        # Steps of one name are told apart by their position alone: their arguments need not be JSON.
        return self._child(self._history.next_position(), Kind.RUN, name, "[]", "")

    def _child(self, position: int, kind: Kind, function: str, args: str, digest: str, **fields: Any) -> Call:
        invocation = self._history.invocation
        promise_id = ids.child_id(invocation.id, position)
        return Call(
            id=promise_id,
            position=position,
            kind=kind,
            group=invocation.group,
            function=function,
            args=args,
            digest=digest,
            **fields,
        )


class Log(LoggerAdapter):
    """Logs with the id of the promise in front, and in ``extra`` as ``promise_id``; nothing while replaying."""

    def __init__(self, history: History) -> None:
        invocation = history.invocation
        super().__init__(logging.getLogger(invocation.task_name), {"promise_id": invocation.id})
        self._history = history

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        """Return whether a message of this level would be logged now."""
        return not self._history.is_replaying and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return what is logged."""
        return super().process(f"{self._history.invocation.id}: {msg}", kwargs)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _check_step(method: str, function: object, retry: RetryPolicy | None) -> None:
    if retry is not None:
        check_policy(retry)
    if isinstance(function, DurableFunction):
        raise MisuseError(
            f"ctx.{method}() runs plain functions, and {function.name} is a durable one; "
            f"write ctx.rpc({function.name}, …)"
        )
    if inspect.isgeneratorfunction(function):
        raise MisuseError(
            f"ctx.{method}() cannot run {_name(function)}, a generator function; make it a plain function, or register "
            "it with @durable and write ctx.rpc(…)"
        )
    if not callable(function):
        raise MisuseError(
            f"ctx.{method}() takes a function and its arguments, not {function!r}; "
            f"write ctx.{method}(charge, order_id), without calling it"
        )


def _check_operations(method: str, operations: tuple[object, ...]) -> None:
    for operation in operations:
        if not isinstance(operation, Operation):
            raise MisuseError(
                f"ctx.{method}() takes calls and futures of its context, not {type(operation).__name__}; "
                f"write ctx.{method}(ctx.rpc(…), ctx.rpc(…))"
            )
