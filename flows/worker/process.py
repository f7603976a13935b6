"""What the processes of one node share: its id, and two flags that reach forked pool processes."""

import itertools
import mmap
import os
import threading
from collections.abc import Iterable

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from flows.conf import settings
from flows.store import nodes, sql
from flows.store.claims import Claim, Holder

_STOPPING = 0
_SENDS_EVENTS = 1

# Anonymous shared memory: what the main process writes, the pool processes that were forked from it read.
_flags = mmap.mmap(-1, mmap.PAGESIZE)
_node_id: int | None = None
_node_name = ""


def become_node(node_id: int, name: str) -> None:
    """Make this process, and those forked from it later, processes of the node."""
    global _node_id, _node_name
    _node_id, _node_name = node_id, name
    connection_created.connect(_number_session, dispatch_uid="flows.session")


def holder() -> Holder:
    """Return who claims in this thread, which has no claims in hand now.

    Connects to the database if need be: a claim belongs to the session through which it is made.
    """
    if _node_id is None:
        raise RuntimeError("this process is not a worker: durable functions are run by `celery worker`")
    _thread.kept = set()
    sql.connection().ensure_connection()
    return Holder(node_id=_node_id, session=_thread.session)


def keep(claims: Iterable[Claim]) -> None:
    """Name the claims in this thread's hands: they outlive a reconnect, unlike those whose answer was lost with it."""
    _thread.kept = {claim.holder.session for claim in claims}


def node_name() -> str:
    """Return Celery's name of the node."""
    return _node_name


def stop_draining() -> None:
    """Tell all processes of the node to begin no further attempt."""
    _flags[_STOPPING] = 1


def is_stopping() -> bool:
    """True once the node is shutting down."""
    return bool(_flags[_STOPPING])


def set_sends_events(enabled: bool) -> None:  # noqa: FBT001 - the value of a flag
    """Tell all processes of the node whether Celery's task events are on."""
    _flags[_SENDS_EVENTS] = int(enabled)


def sends_events() -> bool:
    """True while Celery's task events are on."""
    return bool(_flags[_SENDS_EVENTS])


class _Thread(threading.local):
    session = 0
    kept: set[int] = set()


_thread = _Thread()
_count = itertools.count()


def _number_session(connection: BaseDatabaseWrapper, **_: object) -> None:
    # 22 bits of process id, as many as Linux has, and 9 of a count: no two live sessions of a node are alike.
    if connection.alias == settings.DATABASE and _node_id is not None:
        _thread.session = (os.getpid() << 9) | (next(_count) % 512)
        for session in {_thread.session, *_thread.kept}:
            nodes.hold_session_lock(_node_id, session)
