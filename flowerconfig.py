"""Settings of Flower, which reads this file in the folder that it is started in. It never starts without a password."""

import os
from typing import Any

from django.contrib.admin.utils import quote
from tornado.options import options

from celery_app import GROUPS

# Whoever reaches Flower can revoke and terminate tasks. Other ways to log in have their own options.
if not options.auth and not all(login.partition(":")[2] for login in options.basic_auth or [""]):
    raise SystemExit("Flower needs a login: set FLOWER_BASIC_AUTH=user:password, or give it --basic_auth or --auth")

ADMIN_URL = os.environ.get("ADMIN_URL", "http://127.0.0.1:8000/admin/")


def format_task(task: Any) -> Any:
    """Show where the promise of a durable task stands in the admin: Flower escapes all that it shows, so as a text."""
    if (task.name or "").partition(".")[0] in GROUPS:
        task.args = f"{ADMIN_URL.rstrip('/')}/flows/promise/{quote(task.uuid)}/change/"
        task.kwargs = None
    return task
