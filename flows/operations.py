"""What callers do with promises: start, look, settle, cancel, retry, and what operators do with those that have run.

Each is the store and the canvas together.
"""

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack, overload

from asgiref.sync import sync_to_async
from django.db import transaction

from flows import canvas, tracing
from flows.conf import settings
from flows.domain import ids, values
from flows.domain.durations import Duration, to_duration
from flows.domain.errors import InvalidInputError, PromiseConflict, Refused
from flows.domain.promise import Kind, Promise, State, describe_error
from flows.engine.context import Context
from flows.engine.registry import Returns, registry
from flows.engine.requests import Options, request, shape_for
from flows.handle import Handle
from flows.store import cancel as cancellation
from flows.store import joins, promises, purges, reruns, retries
from flows.store.claims import ReadyRef
from flows.store.promises import Start
from flows.store.purges import Purged

P = ParamSpec("P")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

SETTLED = tuple(state for state in State if state is not State.PENDING)
# A batch is one transaction: short enough to be in nobody's way.
PURGE_BATCH = 500


@overload
def begin_rpc(
    promise_id: str, function: Callable[[Context, *Ts], Returns[R]], *args: *Ts, **options: Unpack[Options]
) -> Handle[R]: ...
@overload
def begin_rpc(promise_id: str, function: str, *args: Any, **options: Unpack[Options]) -> Handle[Any]: ...
def begin_rpc(  # type: ignore[misc]  # mypy takes *args: Any for less than *args: *Ts
    promise_id: str, function: Any, *args: Any, **options: Unpack[Options]
) -> Handle[Any]:
    """Start a durable function under ``promise_id``, or find the flow that was started under it before.

    Inside ``transaction.atomic()`` the flow starts if and only if that transaction commits. ``target`` is
    ``poll://any@<group>`` or the group's name; it may be left out if ``function`` is the function itself. ``timeout``
    is the time until the deadline, or the deadline (default: the function's, or the TIMEOUT setting). ``retry``
    replaces the function's policy; ``tags`` are strings by name, shown beside the promise.

    Raises ``InvalidInputError`` for an input that breaks a rule, ``PromiseConflict`` if the id belongs to another call;
    nothing is written then. A broker that is away is no error: the message is sent later.
    """
    handle, ready = _begin(promise_id, function, args, options)
    _send_on_commit(ready)
    return handle


# For callers in an event loop: a few threads, each with a connection that stays. A view's own thread would connect for
# each request, and hold its connection for as long as the view waits.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="flows")
# A thread of its own for what they send: a broker that hangs holds up no answer.
_sender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flows-send")


def in_thread(function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return ``function`` as a coroutine function that does not block the event loop."""
    return sync_to_async(function, thread_sensitive=False, executor=_threads)


@overload
async def abegin_rpc(
    promise_id: str, function: Callable[[Context, *Ts], Returns[R]], *args: *Ts, **options: Unpack[Options]
) -> Handle[R]: ...
@overload
async def abegin_rpc(promise_id: str, function: str, *args: Any, **options: Unpack[Options]) -> Handle[Any]: ...
async def abegin_rpc(  # type: ignore[misc]  # mypy takes *args: Any for less than *args: *Ts
    promise_id: str, function: Any, *args: Any, **options: Unpack[Options]
) -> Handle[Any]:
    """As ``begin_rpc``, without blocking the event loop, and in a transaction of its own."""
    handle, ready = await in_thread(_begin)(promise_id, function, args, options)
    if ready:
        _sender.submit(canvas.wake, ready)
    return handle


@overload
def rpc(
    promise_id: str, function: Callable[[Context, *Ts], Returns[R]], *args: *Ts, **options: Unpack[Options]
) -> R: ...
@overload
def rpc(promise_id: str, function: str, *args: Any, **options: Unpack[Options]) -> Any: ...
def rpc(  # type: ignore[misc]  # mypy takes *args: Any for less than *args: *Ts
    promise_id: str, function: Any, *args: Any, **options: Unpack[Options]
) -> Any:
    """Start a durable function, or find it, and wait for its value; arguments and errors as for ``begin_rpc``."""
    return begin_rpc(promise_id, function, *args, **options).result()


def get(promise_id: str) -> Promise:
    """Return the promise as it stands; raise ``PromiseNotFound``."""
    return promises.get(promise_id)


def resolve(promise_id: str, value: Any = None) -> bool:
    """Resolve a promise that ``ctx.promise`` made, with a JSON value; return False if it had this very outcome already.

    Raises ``PromiseNotFound``, ``NotJSONError``, ``InvalidInputError`` for a promise that a function or a timer
    settles, and ``PromiseConflict`` if it has another outcome; nothing is written then.
    """
    text = values.encode(value, "value")
    return _settle(promise_id, State.RESOLVED, value=text)


def reject(promise_id: str, error: BaseException | str) -> bool:
    """Reject a promise that ``ctx.promise`` made: who awaits it sees ``PromiseRejected``; otherwise as ``resolve``."""
    described = describe_error(error if isinstance(error, BaseException) else Refused(error))
    return _settle(promise_id, State.REJECTED, error=described)


def cancel(promise_id: str) -> int:
    """Cancel the promise and all calls below it, detached ones excepted; return how many were still pending.

    Running attempts learn of it at their next durable operation. A second call returns 0. Raises ``PromiseNotFound``.
    """
    promises.get(promise_id)
    count, parent_id = cancellation.cancel_tree(promise_id)
    if parent_id is not None:
        _join_on_commit(parent_id)
    return count


def retry(promise_id: str) -> bool:
    """Give a promise another chance; its finished calls and steps are kept.

    A pending one that was set aside, or waits for its next attempt, runs now. A rejected one is pending again, with the
    failed calls below it that made it so, their failures counted from 0 and their time from now. Return False if it
    has another outcome, runs, or waits for its calls. Raises ``PromiseNotFound``, and ``InvalidInputError`` for a
    rejected call whose caller has gone on with that.
    """
    promise = promises.get(promise_id)
    if promise.state is State.REJECTED and promise.kind not in (Kind.ROOT, Kind.DETACHED):
        raise InvalidInputError(
            "id", f"the caller of {promise_id!r} has seen its outcome; retry the flow instead: {promise.root_id!r}"
        )
    ready = retries.reopen(promise_id) if promise.is_settled else retries.retry(promise_id)
    _send_on_commit(ready)
    return bool(ready)


def release(promise_id: str) -> bool:
    """Take the claim on a promise back at once, from a holder that hangs; return False if nobody holds it.

    The promise is ready for others. Its attempt is recorded as lost, and not counted as a loss; what its worker still
    writes is refused, but is not undone: a step in flight runs again. Raises ``PromiseNotFound``.
    """
    promises.get(promise_id)
    ready = retries.release(promise_id)
    _send_on_commit(ready)
    return bool(ready)


def run_again(promise_id: str, new_id: str, *, from_step: int | None = None) -> Handle[Any]:
    """Start the call of a root again under ``new_id``: with the same arguments, version and options.

    With ``from_step`` what its calls at positions before that have come to is taken over, and the function goes on from
    there; those that are pending are made again, detached ones that were started are not. Raises ``PromiseNotFound``,
    ``PromiseConflict`` if the new id is taken, and ``InvalidInputError`` for what is no root, or no id, or no step.
    """
    if from_step is not None and (type(from_step) is not int or not 0 <= from_step <= ids.MAX_CALLS):
        raise InvalidInputError("from_step", f"must be the position of a call, from 0 on, and is {from_step!r}")
    promise = promises.get(promise_id)
    if promise.kind is not Kind.ROOT:
        raise InvalidInputError(
            "id", f"{promise_id!r} was called by another promise ({promise.kind}); run its flow again instead"
        )
    checked_id = ids.check_id(new_id, "new_id")
    with tracing.begin(promise.function):
        ready = reruns.run_again(promise_id, checked_id, from_step=from_step or 0, trace=tracing.carrier())
    _send_on_commit(ready)
    return Handle(new_id)


def purge_tree(promise_id: str) -> int:
    """Delete a flow that has ended: its promises and their attempts. Return how many promises that were.

    That is 0 if it is still pending, or something below it is, or a flow that may yet be replayed has started it
    (detached). Detached calls are flows of their own. The id is unknown afterwards, and may be used for another call.
    Raises ``PromiseNotFound``, and ``InvalidInputError`` for a call below a flow.
    """
    promise = promises.get(promise_id)
    if promise.kind not in (Kind.ROOT, Kind.DETACHED):
        raise InvalidInputError("id", f"{promise_id!r} is part of a flow; purge the flow instead: {promise.root_id!r}")
    return purges.purge_tree(promise_id).promises


def purge(*, older_than: Duration, states: Iterable[State] = SETTLED, limit: int | None = None) -> int:
    """Delete flows that settled longer ago than ``older_than``, each as ``purge_tree`` does; return how many.

    In batches, each a transaction of its own, oldest first, until none is left or ``limit`` flows are gone. Safe beside
    workers, and beside another purge. Raises ``InvalidInputError``.
    """
    return sum(batch.flows for batch in purge_batches(older_than=older_than, states=states, limit=limit))


def purge_batches(
    *, older_than: Duration, states: Iterable[State] = SETTLED, limit: int | None = None, batch: int = PURGE_BATCH
) -> Iterator[Purged]:
    """As ``purge``; tell of each batch when it is gone."""
    age, chosen = to_duration(older_than, "older_than"), check_settled(states)
    left = limit
    while left is None or left > 0:
        size = batch if left is None else min(batch, left)
        purged = purges.purge(older_than=age, states=chosen, limit=size)
        if not purged.flows:
            return
        yield purged
        left = None if left is None else left - purged.flows


def check_settled(states: Iterable[State]) -> list[State]:
    """Return the states; raise ``InvalidInputError`` for one that is none, or not final."""
    chosen = [states] if isinstance(states, str) else list(states)
    for state in chosen:
        if state not in SETTLED:
            raise InvalidInputError("states", f"may be {', '.join(SETTLED)}, and has {state!r}")
    return [State(state) for state in chosen]


def _settle(promise_id: str, state: State, *, value: str | None = None, error: dict[str, Any] | None = None) -> bool:
    parent_id = promises.settle(promise_id, state, value=value, error=error)
    if parent_id is not None:
        _join_on_commit(parent_id)
        return True
    promise = promises.get(promise_id)
    if promise.kind is not Kind.EXTERNAL:
        raise InvalidInputError(
            "id",
            f"{promise_id!r} is settled by what it stands for, {promise.kind} {promise.function}; "
            "only what ctx.promise(…) made can be settled from outside",
        )
    has_value = value is None or values.encode(promise.value, "value") == value
    if promise.state is not state or not has_value or _told(promise.error) != _told(error):
        raise PromiseConflict(f"promise {promise_id!r} is {promise.state} already, with another outcome; it stays so")
    return False


def _told(error: dict[str, Any] | None) -> tuple[str, str] | None:
    return (error["type"], error["message"]) if error else None


def _send_on_commit(ready: Sequence[ReadyRef]) -> None:
    if ready:
        transaction.on_commit(lambda: canvas.wake(ready), using=settings.DATABASE)


def _join_on_commit(parent_id: str) -> None:
    transaction.on_commit(lambda: canvas.wake(joins.join([parent_id])), using=settings.DATABASE)


def _begin(
    promise_id: str, function: object, args: Sequence[Any], options: Options
) -> tuple[Handle[Any], list[ReadyRef]]:
    """Start the flow, or find it; return its handle, and what is to be sent for it."""
    call = _start(promise_id, function, args, options)
    ready = ReadyRef(id=call.id, group=call.group, function=call.function, addressee=call.addressee)
    with tracing.begin(call.function):
        is_new = promises.start(replace(call, trace=tracing.carrier()))
    return Handle(call.id, shape_for(function)), [ready] if is_new else []


def _start(promise_id: str, function: object, args: Sequence[Any], options: Options) -> Start:
    fields = request(function, args, options)
    group = fields["group"]
    if settings.GROUPS and group not in settings.GROUPS:
        raise InvalidInputError("target", f"there is no group {group!r}; known are: {', '.join(settings.GROUPS)}")
    # A group whose code lives in another project cannot be checked here: the promise waits for a worker that knows it.
    if registry.has_group(group):
        registry.get(group, fields["function"])
    return Start(id=ids.check_id(promise_id), **fields)
