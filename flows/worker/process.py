"""What the processes of one node share: its id, flags that reach forked processes, and the sessions that claim."""

import itertools
import mmap
import os
import threading
import weakref
from collections.abc import Collection
from typing import Any

from celery.worker import state

from flows.store.claims import Holder
from flows.store.memory import Memory
from flows.worker.watchdog import Watchdog, Watched

_STOPPING = 0
_SENDS_EVENTS = 1
# And on: whether each of the node's groups is served.
_SERVES = 2

# Anonymous shared memory: what the main process writes, the pool processes that were forked from it read.
_flags = mmap.mmap(-1, mmap.PAGESIZE)
_node_id: int | None = None
_node_name = ""
_node_pid = 0
_groups: tuple[str, ...] = ()


def become_node(node_id: int, name: str, groups: tuple[str, ...]) -> None:
    """Make this process, the node's main one, and those forked from it later, processes of the node."""
    global _node_id, _node_name, _node_pid, _groups
    _node_id, _node_name, _node_pid, _groups = node_id, name, os.getpid(), groups
    set_served(groups)


def node_name() -> str:
    """Return Celery's name of the node."""
    return _node_name


def addresses() -> tuple[str, ...]:
    """Return what calls to this very node may name."""
    return (str(_node_pid), _node_name)


def holder() -> Holder:
    """Return who claims in this thread: its session, whose lock is held. Blocks while PostgreSQL is away."""
    if _node_id is None:
        raise RuntimeError("this process is not a worker: durable functions are run by `celery worker`")
    if _thread.session is None or _thread.session.pid != os.getpid():
        # 22 bits of process id, as many as Linux has, and 9 of a count, so that threads have sessions of their own.
        number = (os.getpid() << 9) | (next(_count) % 512)
        _thread.session = _Session(Holder(node_id=_node_id, session=number, addresses=addresses()))
    return _thread.session.holder


def memory() -> Memory:
    """Return what this thread need not read again."""
    return _thread.memory


def retire() -> None:
    """Give this thread's session up, for something went wrong with its claims: the sweep takes them all."""
    _thread.session = None


def watch(watched: Watched) -> None:
    """Have the watchdog of this process do what ``watched`` has to do when it is due."""
    _watchdog().watch(watched)


def stop_draining() -> None:
    """Tell all processes of the node to begin no further attempt."""
    _flags[_STOPPING] = 1


def is_stopping() -> bool:
    """True once the node is shutting down. Pools without processes are told by Celery's own state."""
    return bool(_flags[_STOPPING]) or _is_asked(state.should_stop) or _is_asked(state.should_terminate)


def _is_asked(flag: Any) -> bool:
    # It holds the exit status, which is 0 for an orderly stop.
    return flag is not None and flag is not False


def set_served(groups: Collection[str]) -> None:
    """Tell all processes of the node which of its groups are served: those that it consumes the queues of."""
    for index, group in enumerate(_groups):
        _flags[_SERVES + index] = int(group in groups)


def served() -> list[str]:
    """Return the groups of the node that are served."""
    return [group for index, group in enumerate(_groups) if _flags[_SERVES + index]]


def set_sends_events(enabled: bool) -> None:  # noqa: FBT001 - the value of a flag
    """Tell all processes of the node whether Celery's task events are on."""
    _flags[_SENDS_EVENTS] = int(enabled)


def sends_events() -> bool:
    """True while Celery's task events are on."""
    return bool(_flags[_SENDS_EVENTS])


class _Session:
    """A session whose lock is held until nobody refers to this any more: until its thread gives it up, or ends."""

    def __init__(self, holder: Holder) -> None:
        self.holder, self.pid = holder, os.getpid()
        watchdog = _watchdog()
        weakref.finalize(self, _retire, watchdog, holder).atexit = False
        watchdog.enroll(holder)


class _Thread(threading.local):
    def __init__(self) -> None:
        self.session: _Session | None = None
        self.memory = Memory()


_thread = _Thread()
_count = itertools.count()
_start_lock = threading.Lock()
_started: Watchdog | None = None


def _retire(watchdog: Watchdog, holder: Holder) -> None:
    if watchdog.pid == os.getpid():  # not that of the process that this one was forked from
        watchdog.retire(holder)


def _watchdog() -> Watchdog:
    """Return the watchdog of this process; started at first use, hence after a fork."""
    global _started
    with _start_lock:
        if _started is None or _started.pid != os.getpid():
            _started = Watchdog()
        return _started
