"""The worker's view of one message for a durable task."""

from typing import Any

from celery.worker.request import Request

from flows.worker.task import Unsettled


class AttemptRequest(Request):
    """Reports success only for a promise that resolved: a suspended one stays STARTED in Flower until it goes on."""

    def send_event(self, type: str, **fields: Any) -> Any:
        """Send an event about this message."""
        if type == "task-succeeded" and str(fields.get("result", "")).startswith(Unsettled.PREFIX):
            return None
        return super().send_event(type, **fields)
