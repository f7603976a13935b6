"""Stored values as HTML, escaped."""

import json
from datetime import datetime
from typing import Any

from django.contrib.admin.utils import quote
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

NOTHING = "-"
MAX_SHOWN = 8_000
MAX_ID_SHOWN = 60


def json_block(value: Any) -> SafeString:
    """Return ``value`` as indented JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    more = f"\n… {len(text) - MAX_SHOWN} more characters" if len(text) > MAX_SHOWN else ""
    return format_html("<pre>{}{}</pre>", text[:MAX_SHOWN], more)


def error_block(error: dict[str, Any] | None) -> SafeString | None:
    """Return a stored error that unfolds into its traceback and its cause."""
    if error is None:
        return None
    summary = f"{error['type']}: {error['message']}"
    cause = error_block(error["cause"]) or ""
    return format_html("<details><summary>{}</summary><pre>{}</pre>{}</details>", summary, error["traceback"], cause)


def moment(at: datetime | None) -> str:
    """Return a time in the current time zone, to the millisecond: flows are over before a minute is."""
    return localtime(at).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if at else NOTHING


def short_id(promise_id: str) -> SafeString:
    """Return the id, without its middle if it is long."""
    half = MAX_ID_SHOWN // 2
    short = promise_id if len(promise_id) <= MAX_ID_SHOWN else f"{promise_id[:half]}…{promise_id[-half:]}"
    return format_html('<span title="{}">{}</span>', promise_id, short)


def promise_link(promise_id: str) -> SafeString:
    """Return a link to the promise, whether or not there is one."""
    url = reverse("admin:flows_promise_change", args=[quote(promise_id)])
    return format_html('<a href="{}">{}</a>', url, short_id(promise_id))


def list_link(model: str, words: str, **where: str) -> SafeString:
    """Return a link to the list of those rows of ``model`` that have these values."""
    url = reverse(f"admin:flows_{model}_changelist", query=where)
    return format_html('<a href="{}">{}</a>', url, words)
