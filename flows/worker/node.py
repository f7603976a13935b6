"""The bootstep that makes a Celery worker a node: registers it, beats, sweeps, and ends drains at shutdown."""

import gc
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import bootsteps, signals
from django.db import DatabaseError, InterfaceError, connections

from flows import canvas
from flows.conf import settings
from flows.engine.registry import registry
from flows.store import nodes, sql, sweeps
from flows.store.claims import ReadyRef
from flows.store.nodes import NodeInfo
from flows.worker import broker, process
from flows.worker.consumer import Consumer
from flows.worker.drain import attended
from flows.worker.sweep import fire, sweep
from flows.worker.watchdog import RECONNECT_EVERY_S

log = logging.getLogger(__name__)

# A sweep that has just connected again has seen PostgreSQL restart, perhaps: all processes need a moment to take their
# locks, and to beat, again. Watchdogs try every 0.1 s, or are in a commit that is tried every 0.5 s.
LOCKS_RETURN_S = 1.5
LEAST_WAIT_S = 0.01
HAND_BACK_TRIES = 3


class Node(bootsteps.StartStopStep):
    """One per worker. Its thread beats until the last attempt has ended, so that a draining node keeps its claims."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._groups: tuple[str, ...] = ()
        self._node_id = 0
        self._ended = threading.Event()
        self._connection: object = None
        self._connected_at = 0.0
        self._tried_at = self._swept_at = -math.inf

    def include_if(self, worker: Any) -> bool:
        """Return True if the worker consumes from the queue of a group that it has code for."""
        self._groups = tuple(queue for queue in worker.app.amqp.queues.consume_from if registry.has_group(queue))
        return bool(self._groups)

    def create(self, worker: Any) -> None:
        """Register the node: before the pool forks, so that its processes know which node they belong to."""
        self._info = NodeInfo(name=worker.hostname, groups=self._groups, hostname=socket.gethostname(), pid=os.getpid())
        self._node_id = _register(self._info)
        broker.install()
        worker.consumer_cls = Consumer
        process.become_node(self._node_id, worker.hostname, self._groups)
        process.set_sends_events(worker.task_events)
        # A connection must not be shared with the processes that are forked now; memory should be, and stays so if the
        # garbage collector leaves what exists alone.
        connections[settings.DATABASE].close()
        gc.collect()
        gc.freeze()

    def start(self, worker: Any) -> None:
        """Start to beat and to sweep, each in a thread: a sweep may have to wait for the broker, a beat must not."""
        signals.worker_shutdown.connect(self._end, weak=False)
        self._beating = self._start_thread("flows-beat", self._beat)
        self._start_thread("flows-sweep", lambda: self._sweep(worker))

    def stop(self, worker: Any) -> None:
        """End drains after the attempt in hand; the heart beats on until the pool has stopped, STOP_WITHIN at most."""
        process.stop_draining()
        threading.Thread(target=self._hand_back, args=(worker,), name="flows-stop", daemon=True).start()

    def terminate(self, worker: Any) -> None:
        """As ``stop``: a cold shutdown, too, begins no further attempt."""
        self.stop(worker)

    def _start_thread(self, name: str, act: Callable[[], float | None]) -> threading.Thread:
        thread = threading.Thread(target=self._repeat, args=(name, act), name=name, daemon=True)
        thread.start()
        return thread

    def _repeat(self, name: str, act: Callable[[], float | None]) -> None:
        """Act every SWEEP_EVERY, or sooner, in as many seconds as ``act`` returns, or once PostgreSQL is back."""
        wait_s: float | None = None
        is_away = False
        while not self._ended.wait(min(settings.SWEEP_EVERY.total_seconds(), wait_s or math.inf)):
            wait_s = None
            try:
                wait_s = act()
                is_away = False
            except (DatabaseError, InterfaceError) as error:
                if not is_away:
                    log.warning("%s failed, trying again: %s", name, error)
                is_away, wait_s = True, RECONNECT_EVERY_S
            except Exception:  # the thread must live on: without it the node loses its claims
                log.exception("%s failed, trying again", name)

    def _beat(self) -> None:
        nodes.beat(self._node_id, self._info)

    def _sweep(self, worker: Any) -> float | None:
        if dispatcher := getattr(worker.consumer, "event_dispatcher", None):
            # Remote control turns events on and off. No group at all means every one.
            process.set_sends_events(not dispatcher.groups or "task" in dispatcher.groups)
        # It makes a node begin and cease to consume from a queue, too.
        process.set_served(worker.app.amqp.queues.consume_from)
        sql.connection().ensure_connection()
        if sql.connection().connection is not self._connection:
            self._connection, self._connected_at = sql.connection().connection, time.monotonic()
        now, every_s = time.monotonic(), settings.SWEEP_EVERY.total_seconds()
        if now - self._tried_at > 0.8 * every_s:
            self._tried_at = now
            if sweep(self._node_id, recovers=now - self._connected_at > LOCKS_RETURN_S):
                self._swept_at = now
        # One node is awake for the timers of all.
        has_turn = now - self._swept_at < every_s
        next_s = fire(self._groups, process.addresses(), lambda: _attended(worker), deadlines=has_turn)
        return None if next_s is None else max(next_s, LEAST_WAIT_S)

    def _hand_back(self, worker: Any) -> None:
        """Leave what takes too long to other nodes, and end the processes that run it."""
        if self._ended.wait(settings.STOP_WITHIN.total_seconds()):
            return
        ready = self._handed_back()
        pool = getattr(worker.pool, "_pool", None)
        processes = getattr(pool, "_pool", ())
        log.warning("attempts in hand took more than %s: left to other nodes", settings.STOP_WITHIN)
        for child in processes:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        canvas.send(ready)

    def _handed_back(self) -> list[ReadyRef]:
        for _ in range(HAND_BACK_TRIES):
            try:
                return sweeps.hand_back(self._node_id)
            except (DatabaseError, InterfaceError) as error:  # a deadlock with a commit, or an outage
                log.warning("claims not handed back: %s", error)
        return []

    def _end(self, **_: Any) -> None:
        self._ended.set()
        # A beat that is under way would make the node live again.
        self._beating.join(timeout=LOCKS_RETURN_S)
        try:
            nodes.stop(self._node_id)
        except (DatabaseError, InterfaceError) as error:
            log.warning("node not signed off, its lease will end: %s", error)


def _attended(worker: Any) -> list[str]:
    # A pool that stops has no processes to count, and its slots look no more.
    return [] if process.is_stopping() else attended(slots=worker.pool.num_processes)


def _register(info: NodeInfo) -> int:
    while True:
        try:
            return nodes.register(info)
        except (DatabaseError, InterfaceError) as error:
            log.warning("cannot register node %s, trying again: %s", info.name, error)
            time.sleep(1)
