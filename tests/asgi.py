"""The gateway with the example's app and queues."""

from tests import celery_app  # isort: skip  # noqa: F401 - chooses the settings, before they are read
from gateway_project.asgi import application

__all__ = ["application"]
