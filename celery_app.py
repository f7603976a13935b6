"""The Celery app: one queue per group. Its settings, JSON only and late acknowledgement among them, are Django's."""

import os

from celery import Celery
from kombu import Exchange, Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")

GROUPS = tuple(f"service-{letter}" for letter in "abcdefghi")

app = Celery("gateway")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_queues = [Queue(group, Exchange(group, type="direct"), routing_key=group) for group in GROUPS]
app.steps["worker"].add("flows.worker.node:Node")
app.autodiscover_tasks()
