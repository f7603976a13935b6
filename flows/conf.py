"""The one reader of the FLOWS setting."""

from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``settings.FLOWS`` may hold, with the defaults."""

    MODULES: tuple[str, ...] = ()
    """Modules that define durable functions; imported when Django is ready."""

    GROUPS: tuple[str, ...] = ()
    """The groups that calls may be started for; empty: any. Each is a Celery queue."""

    DATABASE: str = "default"
    """Alias of the PostgreSQL database that holds the promises."""

    TIMEOUT: timedelta = timedelta(hours=24)
    """Time from the start of a call to its deadline, unless the function or the call says otherwise."""

    LEASE: timedelta = timedelta(seconds=10)
    """How long a node keeps its claims without a heartbeat."""

    SWEEP_EVERY: timedelta = timedelta(seconds=1)
    """Pause between two beats of a node, each followed by a sweep."""

    SESSION_LOCKS: bool = True
    """Detect dead processes by their PostgreSQL session lock. Turn off behind a pooler that shares sessions."""

    COMMIT_WITHIN: timedelta = timedelta(milliseconds=5)
    """How long finished work waits for its commit, to share it with other work; 0 commits each on its own."""

    MAX_LOSSES: int = 5
    """After how many attempts that ended with their process a promise is rejected."""

    STOP_WITHIN: timedelta = timedelta(seconds=20)
    """How long attempts in hand may take once their node is told to stop; then their claims are handed back."""

    POLL_EVERY: timedelta = timedelta(seconds=1)
    """How often waiting callers look themselves, in case a notification was missed."""

    MAX_WAITERS: int = 10_000
    """How many callers of one process may wait for results at once; more are told so at once."""

    FLOWER_URL: str = ""
    """Where people reach Flower, such as https://flower.example.org; the admin links its tasks. Empty: no links."""
    METRICS_TOKEN: str = ""
    """What Prometheus must send as its bearer token to read /metrics. Empty: there are no metrics."""

    SLOW_MOTION: timedelta = timedelta(0)
    """Pause before each attempt runs, so that people can watch a flow, or kill it. For development."""


class LazySettings:
    """Reads ``settings.FLOWS`` when it is first needed, and again when it was overridden, as tests do."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_load(), name)


@cache
def _load() -> Settings:
    given = getattr(django_settings, "FLOWS", {})
    unknown = sorted(set(given) - {field.name for field in fields(Settings)})
    if unknown:
        raise ImproperlyConfigured(f"FLOWS has unknown settings: {', '.join(unknown)}")
    return Settings(**given)


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "FLOWS":
        _load.cache_clear()


setting_changed.connect(_forget, dispatch_uid="flows.conf")
settings: Settings = LazySettings()  # type: ignore[assignment]  # the same attributes, read late
