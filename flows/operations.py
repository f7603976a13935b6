"""What callers do with promises: start, look, cancel. Each is the store and the canvas together."""

from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import transaction

from flows import canvas
from flows.conf import settings
from flows.domain import ids, values
from flows.domain.durations import Duration, to_timeout
from flows.domain.errors import InvalidInputError
from flows.domain.promise import Promise
from flows.engine.registry import DurableFunction, registry
from flows.handle import Handle
from flows.store import cancel as cancellation
from flows.store import joins, promises
from flows.store.claims import ReadyRef
from flows.store.promises import Start

P = ParamSpec("P")
R = TypeVar("R")


def begin_rpc(
    promise_id: str,
    function: str | DurableFunction,
    *args: Any,
    target: str | None = None,
    timeout: Duration | None = None,
) -> Handle:
    """Start a durable function under ``promise_id``, or find the flow that was started under it before.

    Inside ``transaction.atomic()`` the flow starts if and only if that transaction commits. ``target`` is
    ``poll://any@<group>`` or the group's name; it may be left out if ``function`` is the function itself. ``timeout``,
    in seconds or a timedelta, is the time until the deadline (default: the function's, or the TIMEOUT setting).

    Raises ``InvalidInputError`` for an input that breaks a rule, ``PromiseConflict`` if the id belongs to another call;
    nothing is written then. A broker that is away is no error: the message is sent later.
    """
    call = _start(promise_id, function, args, target, timeout)
    if promises.start(call):
        ready = ReadyRef(id=call.id, group=call.group, function=call.function)
        transaction.on_commit(lambda: _send(ready), using=settings.DATABASE)
    return Handle(call.id)


# For callers in an event loop: a few threads, each with a connection that stays. A view's own thread would connect for
# each request, and hold its connection for as long as the view waits.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="flows")


def in_thread(function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return ``function`` as a coroutine function that does not block the event loop."""
    return sync_to_async(function, thread_sensitive=False, executor=_threads)


abegin_rpc = in_thread(begin_rpc)


def rpc(
    promise_id: str,
    function: str | DurableFunction,
    *args: Any,
    target: str | None = None,
    timeout: Duration | None = None,
) -> Any:
    """Start a durable function, or find it, and wait for its value; arguments and errors as for ``begin_rpc``."""
    return begin_rpc(promise_id, function, *args, target=target, timeout=timeout).result()


def get(promise_id: str) -> Promise:
    """Return the promise as it stands; raise ``PromiseNotFound``."""
    return promises.get(promise_id)


def cancel(promise_id: str) -> int:
    """Cancel the promise and all calls below it, detached ones excepted; return how many were still pending.

    Running attempts learn of it at their next durable operation. A second call returns 0. Raises ``PromiseNotFound``.
    """
    promises.get(promise_id)
    count, parent_id = cancellation.cancel_tree(promise_id)
    if parent_id is not None:
        transaction.on_commit(lambda: canvas.send(joins.join([parent_id])), using=settings.DATABASE)
    return count


def retry(promise_id: str) -> bool:
    """Run a pending promise now that was set aside or waits for its next attempt; its finished calls are kept.

    Return False if it does neither: it is settled, runs, or waits for its calls. Raises ``PromiseNotFound``.
    """
    promises.get(promise_id)
    ready = promises.retry(promise_id)
    if ready is not None:
        transaction.on_commit(lambda: _send(ready), using=settings.DATABASE)
    return ready is not None


def _send(ready: ReadyRef) -> None:
    canvas.send([ready])


def _start(
    promise_id: str,
    function: str | DurableFunction,
    args: Sequence[Any],
    target: str | None,
    timeout: Duration | None,
) -> Start:
    known, group, name = _resolve(function, target)
    if known is not None:
        known.check_args(args)
        timeout = timeout if timeout is not None else known.timeout
    timeout = to_timeout(timeout if timeout is not None else settings.TIMEOUT)
    return Start(
        id=ids.check_id(promise_id),
        group=group,
        function=name,
        args=values.encode(list(args), "args"),
        digest=values.digest(args),
        timeout=timeout,
    )


def _resolve(function: str | DurableFunction, target: str | None) -> tuple[DurableFunction | None, str, str]:
    """Return the function, if this process has its code, its group and its name."""
    if isinstance(function, DurableFunction):
        group, name = function.group, function.name
    elif target is None:
        raise InvalidInputError("target", "is needed with a function's name, such as target='poll://any@service-a'")
    else:
        group, name = "", ids.check_function(function)
    if target is not None:
        group = ids.parse_target(target)
    if settings.GROUPS and group not in settings.GROUPS:
        raise InvalidInputError("target", f"there is no group {group!r}; known are: {', '.join(settings.GROUPS)}")
    # A group whose code lives in another project cannot be checked here: the promise waits for a worker that knows it.
    return (registry.get(group, name) if registry.has_group(group) else None), group, name
