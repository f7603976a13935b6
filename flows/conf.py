"""The one reader of the FLOWS setting."""

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured


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
    """How long finished work may wait for its commit, to share it with other work; 0 commits each on its own."""

    MAX_LOSSES: int = 5
    """After how many attempts that ended with their process a promise is rejected."""

    STOP_WITHIN: timedelta = timedelta(seconds=20)
    """How long attempts in hand may take once their node is told to stop; then their claims are handed back."""

    POLL_EVERY: timedelta = timedelta(seconds=1)
    """How often waiting callers look themselves, in case a notification was missed."""

    MAX_WAITERS: int = 10_000
    """How many callers of one process may wait for results at once; more are told so at once."""

    METRICS_TOKEN: str = ""
    """What Prometheus must send as its bearer token to read /metrics. Empty: there are no metrics."""

    FLOWER_URL: str = ""
    """Where people reach Flower, such as https://flower.example.org; the admin links its tasks. Empty: no links."""

    SLOW_MOTION: timedelta = timedelta(0)
    """Pause before each attempt runs, so that people can watch a flow, or kill it. For development."""


class LazySettings:
    """Reads ``settings.FLOWS`` at each access, so that overridden settings take effect."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_load(), name)


_cached: tuple[object, Settings] | None = None


def _load() -> Settings:
    global _cached
    given = getattr(django_settings, "FLOWS", {})
    if _cached is None or _cached[0] is not given:
        unknown = sorted(set(given) - {field.name for field in fields(Settings)})
        if unknown:
            raise ImproperlyConfigured(f"FLOWS has unknown settings: {', '.join(unknown)}")
        _cached = (given, Settings(**given))
    return _cached[1]


settings: Settings = LazySettings()  # type: ignore[assignment]  # the same attributes, read late
