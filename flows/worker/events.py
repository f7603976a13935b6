"""Celery's task events of drained attempts, published many at once; nothing is built while events are off."""

import logging
from typing import Any

from celery import current_app
from celery.utils.saferepr import saferepr

from flows.domain.values import decode
from flows.engine.decision import Decision, Failed, Rejected, Resolved
from flows.worker import process

log = logging.getLogger(__name__)


class Events:
    """Collects events until they are published: once what they tell is committed."""

    def __init__(self) -> None:
        self._is_enabled = process.sends_events()
        self._events: list[tuple[str, dict[str, Any]]] = []

    def started(self, promise_id: str, task_name: str) -> None:
        """An attempt began."""
        if self._is_enabled:
            call = {"uuid": promise_id, "name": task_name, "args": f"({promise_id!r},)", "kwargs": "{}"}
            self._events += [("task-received", call), ("task-started", {"uuid": promise_id})]

    def ended(self, promise_id: str, decision: Decision, runtime: float) -> None:
        """An attempt ended; one that was suspended is still under way for those who watch."""
        if not self._is_enabled:
            return
        match decision:
            case Resolved(value=value):
                fields = {"uuid": promise_id, "result": saferepr(decode(value)), "runtime": runtime}
                self._events.append(("task-succeeded", fields))
            case Rejected(error=error):
                self._events.append(("task-failed", {"uuid": promise_id, **_failure(error)}))
            case Failed(error=error):
                self._events.append(("task-retried", {"uuid": promise_id, **_failure(error)}))

    def publish(self) -> None:
        """Publish what was collected; a broker that is away loses it."""
        if not self._events:
            return
        try:
            self._publish()
        except Exception as error:  # events are for watching: losing some must not end a drain
            log.warning("%d events not sent: %s", len(self._events), error)
        self._events.clear()

    def _publish(self) -> None:
        with (
            current_app.pool.acquire(block=True) as connection,
            current_app.events.Dispatcher(
                connection, hostname=process.node_name(), buffer_group={"task"}, buffer_limit=len(self._events) + 1
            ) as dispatcher,
        ):
            for kind, fields in self._events:
                dispatcher.send(kind, **fields)
            dispatcher.flush()


def _failure(error: dict[str, Any]) -> dict[str, str]:
    return {"exception": f"{error['type']}({error['message']!r})", "traceback": error["traceback"]}
