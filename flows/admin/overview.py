"""One page with what operators watch: groups, nodes, queues, the last hour, PostgreSQL and the broker."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from flows.admin.markup import list_url, promise_url
from flows.conf import settings
from flows.domain.durations import in_words
from flows.domain.promise import State
from flows.models import Promise
from flows.queues import Queues, read_queues
from flows.store.overview import MAX_COUNTED, WINDOW, GroupLoad, Overview, read_overview
from flows.store.server import read_server

POLL_S = 5
# A sweep is late when so many have been left out.
LATE_SWEEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """One group as it is shown. ``messages`` is empty if the broker does not say."""

    load: GroupLoad
    oldest: str
    oldest_url: str
    messages: int | str
    url: str
    aside_url: str
    external_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number with its name. ``css`` colours it."""

    name: str
    value: str
    more: str = ""
    url: str = ""
    css: str = ""


def show(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Return the page; a live page takes the part that changes out of it."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    numbers = read_overview()
    queues = read_queues([group.group for group in numbers.groups])
    context = {
        **model_admin.admin_site.each_context(request),
        "title": "Overview",
        "opts": Promise._meta,  # noqa: SLF001 - Django's documented Meta API
        "poll_s": POLL_S,
        "now_figures": _now(numbers),
        "hour_figures": _last_hour(numbers),
        "machine_figures": _machinery(numbers, queues),
        "groups": [_row(group, numbers, queues) for group in numbers.groups],
        "trouble": queues.trouble,
        "at": numbers.now,
    }
    return TemplateResponse(request, "admin/flows/promise/overview.html", context)


def _row(load: GroupLoad, numbers: Overview, queues: Queues) -> GroupRow:
    return GroupRow(
        load=load,
        oldest=in_words(numbers.now - load.oldest_at) if load.oldest_at else "",
        oldest_url=promise_url(load.oldest_id) if load.oldest_id else "",
        messages=queues.lengths.get(load.group, ""),
        url=list_url("promise", group=load.group, role="all", state=State.PENDING),
        aside_url=list_url("promise", group=load.group, needs="aside"),
        external_url=list_url("promise", group=load.group, needs="somebody"),
    )


def _now(numbers: Overview) -> list[Figure]:
    somebody, aside = numbers.total("external"), numbers.total("aside")
    return [
        Figure(name="ready", value=f"{numbers.total('ready'):,}"),
        Figure(name="running", value=f"{numbers.total('claimed'):,}"),
        Figure(name="suspended", value=f"{numbers.total('suspended'):,}"),
        Figure(name="backing off", value=f"{numbers.total('delayed'):,}"),
        Figure(name="timers", value=f"{numbers.total('timers'):,}"),
        Figure(name="wait for somebody", value=f"{somebody:,}", url=list_url("promise", needs="somebody")),
        Figure(name="set aside", value=f"{aside:,}", url=list_url("promise", needs="aside"), css=_bad_if(aside)),
    ]


def _last_hour(numbers: Overview) -> list[Figure]:
    per_minute = sum(numbers.settled.values()) / (WINDOW / timedelta(minutes=1))
    return [
        Figure(name="flows a minute", value=f"{per_minute:.3g}"),
        *(
            Figure(
                name=f"{state.glyph} {state}",
                value=_bounded(count),
                url=list_url("promise", state=state),
                css=_bad_if(count) if state in (State.REJECTED, State.TIMEDOUT) else "",
            )
            for state, count in numbers.settled.items()
        ),
        Figure(name="attempts lost", value=_bounded(numbers.lost), css=_bad_if(numbers.lost)),
        Figure(name="attempts fenced", value=_bounded(numbers.fenced), css=_bad_if(numbers.fenced)),
    ]


def _machinery(numbers: Overview, queues: Queues) -> list[Figure]:
    server = read_server()
    about = f"about {server.about_promises:,} promises, " if server.about_promises >= 0 else ""
    state = "read-only" if server.is_read_only else "ready"
    return [
        _sweep(numbers),
        Figure(name="live nodes", value=f"{numbers.nodes:,}", url=list_url("node"), css=_bad_if(not numbers.nodes)),
        Figure(
            name=f"PostgreSQL {server.version.split()[0]}",
            value=state,
            more=f"{about}{server.bytes / 1e6:,.0f} MB, {server.connections} of {server.max_connections} connections",
            css=_bad_if(server.is_read_only),
        ),
        Figure(
            name="Broker",
            value="away" if queues.trouble else "ready",
            more=queues.trouble or f"{queues.total:,} messages wait",
            css=_bad_if(queues.trouble),
        ),
    ]


def _sweep(numbers: Overview) -> Figure:
    if numbers.swept_at is None:
        return Figure(name="last sweep", value="never", css="fl-bad")
    age = max(numbers.now - numbers.swept_at, timedelta(0))
    is_late = age > LATE_SWEEPS * settings.SWEEP_EVERY
    return Figure(name="last sweep", value=f"{in_words(age)} ago", css=_bad_if(is_late))


def _bounded(count: int) -> str:
    return f"{count:,}{'+' if count >= MAX_COUNTED else ''}"


def _bad_if(is_bad: object) -> str:
    return "fl-bad" if is_bad else ""
