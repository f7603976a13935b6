"""The product's Celery app with the queues of chaos' own groups."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "chaos.settings"

from kombu import Exchange, Queue

from celery_app import app

__all__ = ["app"]

OWN = [Queue(group, Exchange(group, type="direct"), routing_key=group) for group in ("north", "south")]
app.conf.task_queues = [*app.conf.task_queues, *OWN]
