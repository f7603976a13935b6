"""One thread per process with a connection of its own: shows the process alive, and commits what waits for too long.

It holds the locks of the process's sessions, so that they depend on nothing that user code does with its connections,
and takes them again at once when PostgreSQL was restarted. It commits for threads that are busy in user code.
"""

import logging
import math
import os
import selectors
import threading
import time
import weakref
from collections.abc import Collection
from contextlib import suppress
from typing import Protocol, Self

from django.db import DatabaseError, InterfaceError

from flows.store import nodes, sql
from flows.store.claims import Holder

log = logging.getLogger(__name__)

RECONNECT_EVERY_S = 0.1


class Watched(Protocol):
    """What can come of age."""

    def due_at(self) -> float | None:
        """Return the monotonic time by which something must be done, None if there is nothing."""

    def flush_due(self, others: Collection[Self]) -> None:
        """Do what is due, and for ``others`` what can be done at once with it."""


class Watchdog:
    """``flows.worker.process`` starts the one of each process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._changed = threading.Condition()
        self._wanted: set[Holder] = set()
        self._held: set[Holder] = set()
        self._holds_on: object = None
        self._looks_at = math.inf
        self._is_away = False
        self._watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        threading.Thread(target=self._run, name="flows-watchdog", daemon=True).start()

    def enroll(self, holder: Holder) -> None:
        """Return when the lock of the holder's session is held; blocks while PostgreSQL is away."""
        with self._changed:
            self._wanted.add(holder)
            self._wake()
            self._changed.wait_for(lambda: holder in self._held)

    def retire(self, holder: Holder) -> None:
        """Let go of the lock of the holder's session: the sweep will take its claims."""
        with self._changed:
            self._wanted.discard(holder)
        self._wake()

    def watch(self, watched: Watched) -> None:
        """Do what ``watched`` has to do when it is due."""
        with self._changed:
            self._watched.add(watched)
            due_at = watched.due_at()
            if due_at is not None and due_at < self._looks_at:
                self._looks_at = due_at
                self._wake()

    def _wake(self) -> None:
        # A full pipe is full of wake-ups: one more changes nothing.
        with suppress(BlockingIOError):
            os.write(self._wake_write, b".")

    def _run(self) -> None:
        while True:
            try:
                self._hold_wanted()
                self._flush_due()
                self._wait()
            except (DatabaseError, InterfaceError) as error:
                if not self._is_away:
                    log.warning("sessions are not held while PostgreSQL is away: %s", error)
                self._is_away = True
                self._reconnect()
            except Exception:  # the thread must live on: without it the process loses its claims
                log.exception("the watchdog goes on after an error")
                self._reconnect()

    def _hold_wanted(self) -> None:
        with self._changed:
            wanted = set(self._wanted)
        if wanted:
            sql.connection().ensure_connection()
        if sql.connection().connection is not self._holds_on:
            self._holds_on, self._held = sql.connection().connection, set()
        for holder in wanted - self._held:
            if not nodes.hold_session_lock(holder.node_id, holder.session):
                raise RuntimeError(f"the lock of session {holder.session} is held by something else, exclusively")
        for holder in self._held - wanted:
            nodes.release_session_lock(holder.node_id, holder.session)
        self._is_away = False
        with self._changed:
            self._held = wanted
            self._changed.notify_all()

    def _flush_due(self) -> None:
        now = time.monotonic()
        errors = []
        all_watched = self._all_watched()
        for watched in all_watched:
            due_at = watched.due_at()
            if due_at is not None and due_at <= now:
                try:
                    watched.flush_due(all_watched)
                except Exception as error:  # nothing that one thread has done may hold up the others
                    errors.append(error)
        if errors:
            raise errors[0]

    def _wait(self) -> None:
        with self._changed:
            due = [due_at for watched in self._watched if (due_at := watched.due_at()) is not None]
            self._looks_at = min(due, default=math.inf)
        if self._holds_on is not sql.connection().connection:  # it was lost and found in a flush
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            if self._holds_on is not None:
                selector.register(sql.connection().connection.fileno(), selectors.EVENT_READ)
            ready = selector.select(max(0.0, self._looks_at - time.monotonic()) if due else None)
        for key, _ in ready:
            if key.fd == self._wake_read:
                os.read(self._wake_read, 4096)
            else:  # nothing is expected on it: the server has gone, or says that it will
                with sql.connection().wrap_database_errors:
                    sql.connection().connection.pgconn.consume_input()

    def _all_watched(self) -> list[Watched]:
        with self._changed:
            return list(self._watched)

    def _reconnect(self) -> None:
        with suppress(DatabaseError, InterfaceError):
            sql.connection().close()
        time.sleep(RECONNECT_EVERY_S)
