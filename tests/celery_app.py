"""The product's Celery app with the queues of the example's groups."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"

from kombu import Queue

from celery_app import app

app.conf.task_queues = [*app.conf.task_queues, Queue("orders"), Queue("suppliers")]
