"""System checks: what would lose or double work, told before it does."""

from collections.abc import Sequence
from typing import Any

from celery import current_app
from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's name
from django.db import connections

from flows.conf import settings
from flows.worker.node import Node

MIN_POSTGRESQL = 140_000


@register("flows")
def check_celery(**_: Any) -> list[CheckMessage]:
    """Check the Celery settings that durable flows depend on."""
    found: list[CheckMessage] = []
    conf = current_app.conf
    if conf.result_backend != "flows.backend:PromiseBackend":
        found.append(
            Error(
                f"The Celery result backend is {conf.result_backend!r}.",
                hint="Set CELERY_RESULT_BACKEND = 'flows.backend:PromiseBackend': chords are joined by it.",
                id="flows.E001",
            )
        )
    if list(conf.accept_content) != ["json"]:
        found.append(
            Error(
                f"Celery accepts {sorted(conf.accept_content)}.",
                hint="Set CELERY_ACCEPT_CONTENT = ['json']: whoever can write to the broker could run code otherwise.",
                id="flows.E002",
            )
        )
    if not conf.get("CELERY_DB_REUSE_MAX"):
        found.append(
            Warning(
                "Celery closes the database connection before and after each task.",
                hint="Set CELERY_DB_REUSE_MAX = 1_000_000, CONN_MAX_AGE = None and CONN_HEALTH_CHECKS = True.",
                id="flows.W001",
            )
        )
    if "flows.worker.node:Node" not in current_app.steps["worker"] and Node not in current_app.steps["worker"]:
        found.append(
            Warning(
                "The Celery app has no bootstep that makes its workers nodes.",
                hint="Where the app is made: app.steps['worker'].add('flows.worker.node:Node').",
                id="flows.W002",
            )
        )
    return found


@register("flows")
def check_pages(**_: Any) -> list[CheckMessage]:
    """Check that live pages find their scripts."""
    if apps.is_installed("django_htmx"):
        return []
    hint = "Add 'django_htmx' to INSTALLED_APPS: it ships the htmx of the call trees and of the overview."
    return [Warning("Call trees and the overview cannot be shown: they need django_htmx.", hint=hint, id="flows.W003")]


@register("flows", Tags.database)
def check_database(*, databases: Sequence[str] | None, **_: Any) -> list[CheckMessage]:
    """Check that the promises are kept by a PostgreSQL that can keep them."""
    if settings.DATABASE not in (databases or ()):
        return []
    connection = connections[settings.DATABASE]
    if connection.vendor != "postgresql":
        hint = (
            "Use django.db.backends.postgresql: claims and joins need its row locks, notifications and session locks."
        )
        return [Error(f"Promises cannot be kept in {connection.vendor}.", hint=hint, id="flows.E003")]
    with connection.cursor():
        version: int = connection.pg_version  # type: ignore[attr-defined]  # of the PostgreSQL backend
    if version < MIN_POSTGRESQL:
        return [Error("PostgreSQL is too old.", hint="Use PostgreSQL 14 or later.", id="flows.E004")]
    return []
