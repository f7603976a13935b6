"""The gateway with the example's app and queues, for tests that empty all tables between them."""

import logging

from tests import celery_app  # isort: skip  # noqa: F401 - chooses the settings, before they are read
from django.core.signals import request_started

from gateway_project.asgi import application

__all__ = ["application"]


def _forget(**_: object) -> None:
    from django.contrib.contenttypes.models import ContentType

    ContentType.objects.clear_cache()


# Content types come back with other ids.
request_started.connect(_forget)
# The log says why a page failed.
logging.getLogger("django.request").addHandler(logging.StreamHandler())
