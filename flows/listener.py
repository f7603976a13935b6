"""Waits for promises to settle: one thread and one connection per process, however many wait.

PostgreSQL notifies in the transaction that settles a root or a detached promise; for children, and for notifications
that were missed, the thread looks by itself every POLL_EVERY.
"""

import logging
import os
import selectors
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

from django.db import DatabaseError, InterfaceError

from flows.conf import settings
from flows.domain.errors import PromiseNotFound, TooManyWaitersError
from flows.domain.promise import Promise
from flows.store import promises, sql

log = logging.getLogger(__name__)

_RECONNECT_EVERY_S = 0.5


class Listener:
    """Hands each waiting caller the promise once it has settled."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._waiting: dict[str, set[Future[Promise]]] = {}
        self._count = 0
        self._new: set[str] = set()
        self._notified: set[str] = set()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        threading.Thread(target=self._run, name="flows-listener", daemon=True).start()

    @contextmanager
    def waiting(self, promise_id: str) -> Iterator[Future[Promise]]:
        """Give a future of the settled promise; ``PromiseNotFound`` is set on it if there is none.

        Raises ``TooManyWaitersError`` if the process has as many as it may.
        """
        future: Future[Promise] = Future()
        with self._lock:
            if self._count >= settings.MAX_WAITERS:
                raise TooManyWaitersError(
                    f"{settings.MAX_WAITERS} callers wait in this process already (FLOWS['MAX_WAITERS']); "
                    f"{promise_id} goes on: ask for it again later"
                )
            self._count += 1
            self._waiting.setdefault(promise_id, set()).add(future)
            self._new.add(promise_id)
        self._wake()
        try:
            yield future
        finally:
            future.cancel()
            with self._lock:
                self._count -= 1
                futures = self._waiting.get(promise_id, set())
                futures.discard(future)
                if not futures:
                    self._waiting.pop(promise_id, None)

    def _wake(self) -> None:
        # A full pipe is full of wake-ups: one more changes nothing.
        with suppress(BlockingIOError):
            os.write(self._wake_write, b".")

    def _run(self) -> None:
        while True:
            try:
                self._listen()
            except (DatabaseError, InterfaceError) as error:
                self._disconnect()
                self._await_callers()
                log.warning("cannot listen for settled promises, trying again: %s", error)
                time.sleep(_RECONNECT_EVERY_S)
            except Exception:  # the thread must live on: callers wait for it
                log.exception("cannot listen for settled promises, trying again")
                self._disconnect()
                time.sleep(_RECONNECT_EVERY_S)

    def _disconnect(self) -> None:
        with suppress(DatabaseError, InterfaceError):
            sql.connection().close()

    def _await_callers(self) -> None:
        """Block while nobody waits: without callers there is nothing to reconnect for."""
        while not self._waiting:
            self._sleep(None)

    def _sleep(self, timeout_s: float | None, *descriptors: int) -> None:
        """Wait until somebody calls, or something can be read from one of ``descriptors``."""
        with selectors.DefaultSelector() as selector:
            for descriptor in (self._wake_read, *descriptors):
                selector.register(descriptor, selectors.EVENT_READ)
            if any(key.fd == self._wake_read for key, _ in selector.select(timeout_s)):
                os.read(self._wake_read, 4096)

    def _listen(self) -> None:
        sql.rows("LISTEN flows_settled")
        connection = sql.connection().connection
        # For notifications that arrive while a query runs; _receive takes those that arrive while the thread waits.
        connection.add_notify_handler(lambda notify: self._notified.add(notify.payload))
        polled_at = 0.0
        while True:
            now = time.monotonic()
            poll_every = settings.POLL_EVERY.total_seconds()
            if is_poll := now - polled_at >= poll_every:
                polled_at = now
            self._deliver(self._to_look_at(everything=is_poll))
            if not self._notified:
                self._sleep(max(0.0, polled_at + poll_every - now), connection.fileno())
            self._receive(connection)

    def _receive(self, connection: Any) -> None:
        with sql.connection().wrap_database_errors:
            connection.pgconn.consume_input()
            while notify := connection.pgconn.notifies():
                self._notified.add(notify.extra.decode())

    def _to_look_at(self, *, everything: bool) -> dict[str, set[Future[Promise]]]:
        with self._lock:
            wanted = set(self._waiting) if everything else self._waiting.keys() & (self._new | self._notified)
            self._new.clear()
            self._notified.clear()
            return {promise_id: set(self._waiting[promise_id]) for promise_id in wanted}

    def _deliver(self, callers: dict[str, set[Future[Promise]]]) -> None:
        """Answer ``callers``, who were there before the promises are read; those who come later are looked at next."""
        if not callers:
            return
        for promise in promises.get_many(callers):
            futures = callers.pop(promise.id)
            if promise.is_settled:
                for future in self._take(promise.id, futures):
                    future.set_result(promise)
        for promise_id, futures in callers.items():
            for future in self._take(promise_id, futures):
                future.set_exception(PromiseNotFound(f"there is no promise {promise_id!r}"))

    def _take(self, promise_id: str, futures: set[Future[Promise]]) -> list[Future[Promise]]:
        with self._lock:
            waiting = self._waiting.get(promise_id, set())
            waiting -= futures
            if not waiting:
                self._waiting.pop(promise_id, None)
            # False for one that its caller canceled meanwhile.
            return [future for future in futures if future.set_running_or_notify_cancel()]


_listener: Listener | None = None
_start_lock = threading.Lock()


def listener() -> Listener:
    """Return this process's listener; started at first use, hence after a fork."""
    global _listener
    with _start_lock:
        if _listener is None or _listener.pid != os.getpid():
            _listener = Listener()
        return _listener
