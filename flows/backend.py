"""The promise table as Celery result backend; ordinary tasks keep the stock behaviour of django-celery-results."""

import logging
from typing import Any

from celery import states
from celery.exceptions import NotRegistered
from django.db import DatabaseError, InterfaceError
from django_celery_results.backends.database import DatabaseBackend

from flows import canvas
from flows.domain.errors import PromiseNotFound
from flows.domain.promise import Promise, State, failure_of
from flows.engine.registry import registry
from flows.store import joins, promises

log = logging.getLogger(__name__)

_CELERY_STATES = {
    State.PENDING: states.PENDING,
    State.RESOLVED: states.SUCCESS,
    State.REJECTED: states.FAILURE,
    State.TIMEDOUT: states.FAILURE,
    State.CANCELED: states.REVOKED,
}


class PromiseBackend(DatabaseBackend):  # type: ignore[misc]  # django-celery-results has no types
    """Reads results of durable tasks from their promises and joins their chords by the table.

    ``AsyncResult(promise_id)`` has the promise's state and value. Nothing is written for a durable task: its outcome
    was committed before Celery hears of it.
    """

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store the result of an ordinary task."""
        # An unknown name is no failure of the promise: it waits until a worker knows the function.
        if _is_durable(getattr(request, "task", None)) or (isinstance(result, NotRegistered) and _is_promise(task_id)):
            return result
        return super().store_result(task_id, result, state, traceback, request=request, **kwargs)

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> Any:
        """Count the parts of an ordinary chord; a durable one is counted by the table."""
        if _is_durable(body.task):
            return None
        return super().apply_chord(header_result_args, body, **kwargs)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Wake the parent of a durable part if nothing that it awaits is pending."""
        if not _is_durable(request.task):
            super().on_chord_part_return(request, state, result, **kwargs)
            return
        try:
            canvas.wake(joins.join([request.chord["options"]["task_id"]]))
        except (DatabaseError, InterfaceError) as error:
            # Raised in a worker's main process it would end the worker.
            log.warning("parent of %s not woken, the sweep will: %s", request.id, error)

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        try:
            return _meta(promises.get(task_id))
        except PromiseNotFound:
            return super()._get_task_meta_for(task_id)  # type: ignore[no-any-return]  # untyped base class


def _is_durable(task_name: str | None) -> bool:
    group, _, function = (task_name or "").rpartition(".")
    return registry.find(group, function) is not None


def _is_promise(task_id: str) -> bool:
    try:
        promises.get(task_id)
    except PromiseNotFound:
        return False
    except (DatabaseError, InterfaceError):
        return True
    return True


def _meta(promise: Promise) -> dict[str, Any]:
    failure = failure_of(promise.id, promise.state, promise.error) if promise.is_settled else None
    return {
        "task_id": promise.id,
        "status": _CELERY_STATES[promise.state],
        "result": failure or promise.value,
        "traceback": (promise.error or {}).get("traceback"),
        "children": [],
        "date_done": promise.settled_at,
        "name": f"{promise.group}.{promise.function}",
    }
