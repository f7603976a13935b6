"""``/metrics`` for Prometheus: what SQL can truthfully tell, read when it is asked for.

Gauges only. A counter of all that ever settled would have to count what is kept, and would fall when it is purged.
"""

import hmac
from collections.abc import Iterator
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from flows.conf import settings
from flows.operations import in_thread
from flows.store.overview import GroupLoad, Overview, read_overview

_PHASES = ("ready", "delayed", "claimed", "suspended", "aside", "external", "timers")


@require_safe
async def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with the numbers as they are now; 404 unless METRICS_TOKEN is set, 401 without it."""
    token = settings.METRICS_TOKEN
    if not token:
        raise Http404
    if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), f"Bearer {token}".encode()):
        return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
    from prometheus_client import CONTENT_TYPE_LATEST

    return HttpResponse(await in_thread(exposition)(), content_type=CONTENT_TYPE_LATEST)


def exposition() -> bytes:
    """Return the numbers in the text format of Prometheus."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(read_overview()))
    return generate_latest(registry)


class _Collector:
    """Makes metrics of one overview."""

    def __init__(self, numbers: Overview) -> None:
        self._numbers = numbers

    def describe(self) -> list[Any]:
        """Return nothing: the registry is made for one answer, and has nothing to compare."""
        return []

    def collect(self) -> Iterator[Any]:
        """Return the metrics."""
        numbers = self._numbers
        yield from _of_groups(numbers)
        yield _by("flows_settled_recent", "Flows that settled within the last hour", "state", numbers.settled)
        yield _by(
            "flows_attempts_broken_recent",
            "Attempts within the last hour that were lost with their worker, or fenced",
            "outcome",
            {"lost": numbers.lost, "fenced": numbers.fenced},
        )
        yield _gauge("flows_nodes_alive", "Workers whose lease has not ended", [], [([], numbers.nodes)])
        if numbers.swept_at is not None:
            age_s = (numbers.now - numbers.swept_at).total_seconds()
            yield _gauge("flows_last_sweep_age_seconds", "Time since any worker last swept", [], [([], max(age_s, 0))])


def _of_groups(numbers: Overview) -> Iterator[Any]:
    groups = numbers.groups
    yield _gauge(
        "flows_promises_pending",
        "Pending promises, by what they wait for",
        ["group", "phase"],
        [([group.group, phase], getattr(group, phase)) for group in groups for phase in _PHASES],
    )
    yield _gauge(
        "flows_queue_oldest_seconds",
        "How long the oldest ready promise has been ready",
        ["group"],
        [([group.group], _oldest_s(group, numbers)) for group in groups],
    )
    yield _gauge(
        "flows_nodes", "Workers that serve the group", ["group"], [([group.group], group.nodes) for group in groups]
    )


def _oldest_s(group: GroupLoad, numbers: Overview) -> float:
    return max((numbers.now - group.oldest_at).total_seconds(), 0) if group.oldest_at else 0


def _by(name: str, tells: str, label: str, counts: Any) -> Any:
    return _gauge(name, tells, [label], [([str(value)], count) for value, count in counts.items()])


def _gauge(name: str, tells: str, labels: list[str], values: list[tuple[list[str], float]]) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    gauge = GaugeMetricFamily(name, tells, labels=labels)
    for of, value in values:
        gauge.add_metric(of, value)
    return gauge
