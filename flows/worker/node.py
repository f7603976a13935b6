"""The bootstep that makes a Celery worker a node: registers it, beats, sweeps, and ends drains at shutdown."""

import gc
import logging
import os
import socket
import threading
import time
from typing import Any

from celery import bootsteps, signals
from django.db import DatabaseError, InterfaceError, connections

from flows.conf import settings
from flows.engine.registry import registry
from flows.store import nodes
from flows.store.nodes import NodeInfo
from flows.worker import process
from flows.worker.sweep import sweep

log = logging.getLogger(__name__)


class Node(bootsteps.StartStopStep):
    """One per worker. Its thread beats until the last attempt has ended, so that a draining node keeps its claims."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._groups: tuple[str, ...] = ()
        self._node_id = 0
        self._ended = threading.Event()

    def include_if(self, worker: Any) -> bool:
        """Return True if the worker consumes from the queue of a group that it has code for."""
        self._groups = tuple(queue for queue in worker.app.amqp.queues.consume_from if registry.has_group(queue))
        return bool(self._groups)

    def create(self, worker: Any) -> None:
        """Register the node: before the pool forks, so that its processes know which node they belong to."""
        self._info = NodeInfo(name=worker.hostname, groups=self._groups, hostname=socket.gethostname(), pid=os.getpid())
        self._node_id = _register(self._info)
        process.become_node(self._node_id, worker.hostname)
        # A connection must not be shared with the processes that are forked now; memory should be, and stays so if the
        # garbage collector leaves what exists alone.
        connections[settings.DATABASE].close()
        gc.collect()
        gc.freeze()

    def start(self, worker: Any) -> None:
        """Start to beat and to sweep."""
        signals.worker_shutdown.connect(self._end, weak=False)
        threading.Thread(target=self._run, args=(worker,), name="flows-node", daemon=True).start()

    def stop(self, worker: Any) -> None:
        """End drains after the attempt in hand; the heart beats on until the pool has stopped."""
        process.stop_draining()

    def terminate(self, worker: Any) -> None:
        """As ``stop``: a cold shutdown, too, begins no further attempt."""
        self.stop(worker)

    def _run(self, worker: Any) -> None:
        while not self._ended.wait(settings.SWEEP_EVERY.total_seconds()):
            dispatcher = getattr(worker.consumer, "event_dispatcher", None)
            process.set_sends_events(bool(dispatcher and dispatcher.enabled))
            try:
                nodes.beat(self._node_id, self._info)
                sweep(self._node_id, self._groups)
            except (DatabaseError, InterfaceError) as error:
                log.warning("no sweep: %s", error)
            except Exception:  # the thread must live on: without it the node loses its claims
                log.exception("no sweep")

    def _end(self, **_: Any) -> None:
        self._ended.set()
        try:
            nodes.stop(self._node_id)
        except (DatabaseError, InterfaceError) as error:
            log.warning("node not signed off, its lease will end: %s", error)


def _register(info: NodeInfo) -> int:
    while True:
        try:
            return nodes.register(info)
        except (DatabaseError, InterfaceError) as error:
            log.warning("cannot register node %s, trying again: %s", info.name, error)
            time.sleep(1)
