"""Stored values as HTML, escaped."""

import json
from datetime import datetime
from typing import Any

from django.contrib.admin.utils import quote
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timezone import localtime

from flows.domain.durations import in_words
from flows.domain.promise import State

NOTHING = "-"
MAX_SHOWN = 8_000
MAX_ID_SHOWN = 60


def json_text(value: Any) -> str:
    """Return ``value`` as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def error_block(error: dict[str, Any] | None) -> SafeString | None:
    """Return a stored error that unfolds into its traceback and its cause."""
    if error is None:
        return None
    summary = f"{error['type']}: {error['message']}"
    cause = error_block(error["cause"]) or ""
    return format_html(
        '<details class="fl-error"><summary>{}</summary><pre>{}</pre>{}</details>', summary, error["traceback"], cause
    )


def moment(at: datetime | None) -> str:
    """Return a time in the current time zone, to the millisecond: flows are over before a minute is."""
    return localtime(at).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if at else NOTHING


def duration(begun_at: datetime, ended_at: datetime | None, *, now: datetime) -> SafeString:
    """Return the time between two moments, or until now; the first moment shows when it is pointed at."""
    taken = in_words((ended_at or now) - begun_at)
    return format_html('<span title="since {}">{}{}</span>', moment(begun_at), taken, "" if ended_at else " old")


def state_label(state: State, stands: str = "") -> SafeString:
    """Return a state as glyph, word and colour, and in a few words where a pending promise stands."""
    more = format_html('<br><span class="fl-quiet">{}</span>', stands) if stands else ""
    return format_html(
        '<span class="fl-state fl-{}"><span aria-hidden="true">{}</span> {}</span>{}', state, state.glyph, state, more
    )


def one_line(text: str, length: int) -> SafeString:
    """Return the beginning of ``text`` on one line; all of it shows when it is pointed at."""
    line = " ".join(text.split())
    return format_html('<span title="{}">{}</span>', line[:1000], Truncator(line).chars(length))


def short_id(promise_id: str) -> SafeString:
    """Return the id, without its middle if it is long."""
    half = MAX_ID_SHOWN // 2
    short = promise_id if len(promise_id) <= MAX_ID_SHOWN else f"{promise_id[:half]}…{promise_id[-half:]}"
    return format_html('<span title="{}">{}</span>', promise_id, short)


def promise_url(promise_id: str) -> str:
    """Return the address of the promise's page, whether or not there is one."""
    return reverse("admin:flows_promise_change", args=[quote(promise_id)])


def promise_link(promise_id: str) -> SafeString:
    """Return a link to the promise."""
    return format_html('<a href="{}">{}</a>', promise_url(promise_id), short_id(promise_id))


def list_url(model: str, **where: str) -> str:
    """Return the address of the list of those rows of ``model`` that have these values."""
    return reverse(f"admin:flows_{model}_changelist", query=where)
