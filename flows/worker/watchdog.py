"""One thread per process that commits what a ledger holds for too long, while its own thread is busy in user code."""

import logging
import os
import threading
import time
import weakref
from typing import Protocol

from flows.conf import settings

log = logging.getLogger(__name__)

# After this long without work the thread sleeps until there is some.
_IDLE_S = 1.0


class Watched(Protocol):
    """What can come of age."""

    def due_at(self) -> float | None:
        """Return the monotonic time by which something must be committed, None if there is nothing."""

    def flush(self) -> object:
        """Commit everything."""


class _Watchdog:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self.ledgers: weakref.WeakSet[Watched] = weakref.WeakSet()
        self.is_awake = threading.Event()
        threading.Thread(target=self._run, name="flows-watchdog", daemon=True).start()

    def _run(self) -> None:
        last_work = time.monotonic()
        while True:
            self.is_awake.wait()
            now = time.monotonic()
            due = [(due_at, ledger) for ledger in list(self.ledgers) if (due_at := ledger.due_at()) is not None]
            for _, ledger in (each for each in due if each[0] <= now):
                _flush(ledger)
            if due:
                last_work = now
            elif now - last_work > _IDLE_S:
                last_work = now
                self.is_awake.clear()
            within = settings.COMMIT_WITHIN.total_seconds()
            time.sleep(max(min((due_at for due_at, _ in due), default=now + within) - now, 0.001))


def _flush(ledger: Watched) -> None:
    try:
        ledger.flush()
    except Exception:  # the thread must live on; the owner of the ledger meets the same error
        log.exception("could not commit in time")


_watchdog: _Watchdog | None = None


def watch(ledger: Watched) -> None:
    """Have ``ledger`` committed when it comes of age. The thread is started at first use, hence after a fork."""
    global _watchdog
    if _watchdog is None or _watchdog.pid != os.getpid():
        _watchdog = _Watchdog()
    if ledger not in _watchdog.ledgers:
        _watchdog.ledgers.add(ledger)
    if not _watchdog.is_awake.is_set():
        _watchdog.is_awake.set()
