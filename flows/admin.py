"""Promises, attempts and nodes in the Django admin: to be read, not to be edited."""

import json
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from flows.domain.promise import State
from flows.models import Attempt, Node, Promise
from flows.store import sql

MAX_SHOWN = 8_000
MAX_CHILDREN = 100
NOTHING = "-"
_GLYPHS = {
    State.PENDING: "…",
    State.RESOLVED: "✓",
    State.REJECTED: "✗",
    State.CANCELED: "⊘",
    State.TIMEDOUT: "⌛",
}


class EstimatingPaginator(Paginator):  # type: ignore[type-arg]  # generic in its stubs only
    """Counts the whole table by PostgreSQL's estimate: an exact count reads every row."""

    @cached_property
    def count(self) -> int:
        """Return how many rows there are: exactly if filtered, or few."""
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # the admin pages querysets
        if not rows.query.where:
            estimate = sql.estimated_count(rows.model._meta.db_table)  # noqa: SLF001 - Django's documented Meta API
            if estimate > 10_000:  # noqa: PLR2004 - up to here a count takes a few milliseconds
                return estimate
        return rows.count()


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in its stubs only
    """Shows rows; adds, changes and deletes none."""

    show_full_result_count = False
    paginator = EstimatingPaginator
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: promises are started by calls."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: a row is written by the store alone."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: a checkpoint that is gone would run again."""
        return False


@admin.register(Promise)
class PromiseAdmin(ReadOnlyAdmin):
    """Promises by id prefix, state, kind and group."""

    list_display = ("id", "call", "state_word", "attempts_made", "node", "created_at", "settled_at")
    list_filter = ("state", "phase", "kind", "group")
    list_select_related = ("node",)
    ordering = ("-created_at",)
    search_fields = ("id__startswith",)
    search_help_text = "An id, or how it begins"
    fieldsets = (
        (None, {"fields": ("id", "state_word", "call", "kind", "args_text", "value_text", "error_text", "note")}),
        ("Call graph", {"fields": ("root_link", "parent_link", "children_links", "continuation")}),
        ("Times", {"fields": ("created_at", "deadline_at", "settled_at", "ready_at", "sent_at", "sends")}),
        ("Attempts", {"fields": ("attempts_made", "node", "process", "claimed_at", "attempts_table")}),
    )

    @admin.display(description="state", ordering="state")
    def state_word(self, promise: Promise) -> str:
        """Return the state as a glyph and a word, and where a pending promise stands."""
        stands = f", {promise.phase}" if promise.phase else ""
        return f"{_GLYPHS[State(promise.state)]} {promise.state}{stands}"

    @admin.display(description="attempts", ordering="fence")
    def attempts_made(self, promise: Promise) -> str:
        """Return how many attempts there were, and how many of them raised or died."""
        troubles = ((promise.failures, "failed"), (promise.losses, "lost"))
        return ", ".join([str(promise.fence), *(f"{count} {word}" for count, word in troubles if count)])

    @admin.display(description="call")
    def call(self, promise: Promise) -> str:
        """Return what is called, as Celery names it."""
        return f"{promise.group}.{promise.function}"

    @admin.display(description="arguments")
    def args_text(self, promise: Promise) -> SafeString:
        """Return the arguments as JSON."""
        return _pretty(promise.args)

    @admin.display(description="value")
    def value_text(self, promise: Promise) -> str:
        """Return the value as JSON."""
        return _pretty(promise.value) if promise.state == State.RESOLVED else NOTHING

    @admin.display(description="error")
    def error_text(self, promise: Promise) -> str:
        """Return the stored error, its traceback last."""
        return _error(promise.error) or NOTHING

    @admin.display(description="process")
    def process(self, promise: Promise) -> str:
        """Return the id of the process that runs it."""
        return NOTHING if promise.session is None else str(promise.session >> 9)

    @admin.display(description="root")
    def root_link(self, promise: Promise) -> SafeString:
        """Return a link to the root of the lineage."""
        return _link(promise.root_id)

    @admin.display(description="parent")
    def parent_link(self, promise: Promise) -> str:
        """Return a link to the promise that made the call."""
        return _link(promise.parent_id) if promise.parent_id else NOTHING

    @admin.display(description="children")
    def children_links(self, promise: Promise) -> SafeString:
        """Return links to the calls that it made."""
        children = list(
            promise.children.order_by("position").values_list("id", "function", "state")[: MAX_CHILDREN + 1]
        )
        lines = [(_link(id), function, state) for id, function, state in children[:MAX_CHILDREN]]
        more = "… and more" if len(children) > MAX_CHILDREN else ""
        return format_html("{}{}", format_html_join("", "{} {} {}<br>", lines), more)

    @admin.display(description="ended attempts")
    def attempts_table(self, promise: Promise) -> SafeString:
        """Return the ended attempts, oldest first."""
        attempts = promise.attempts.select_related("node").order_by("fence")[:MAX_CHILDREN]
        rows = [(a.fence, a.outcome, a.node or "", a.started_at, a.ended_at, _error(a.error) or "") for a in attempts]
        heads = format_html_join(
            "", "<th>{}</th>", [(h,) for h in ("#", "outcome", "node", "started", "ended", "error")]
        )
        cells = format_html_join("", "<tr>" + "<td>{}</td>" * 6 + "</tr>", rows)
        return format_html("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", heads, cells)


@admin.register(Attempt)
class AttemptAdmin(ReadOnlyAdmin):
    """Ended attempts, newest first."""

    list_display = ("promise_id", "fence", "outcome", "node", "started_at", "ended_at")
    list_filter = ("outcome",)
    list_select_related = ("node",)
    ordering = ("-id",)
    search_fields = ("promise__id__startswith",)
    search_help_text = "A promise's id, or how it begins"
    fields = ("promise_link", "fence", "outcome", "node", "started_at", "ended_at", "error_text")

    @admin.display(description="promise")
    def promise_link(self, attempt: Attempt) -> SafeString:
        """Return a link to the promise."""
        return _link(attempt.promise_id)

    @admin.display(description="error")
    def error_text(self, attempt: Attempt) -> str:
        """Return the stored error, its traceback last."""
        return _error(attempt.error) or NOTHING


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    """Worker processes, newest first."""

    list_display = ("name", "groups", "hostname", "pid", "started_at", "lease_until", "stopped_at")
    ordering = ("-id",)
    search_fields = ("name__startswith",)
    search_help_text = "A node's name, or how it begins"


def _pretty(value: Any) -> SafeString:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    more = f"\n… {len(text) - MAX_SHOWN} more characters" if len(text) > MAX_SHOWN else ""
    return format_html("<pre>{}{}</pre>", text[:MAX_SHOWN], more)


def _error(error: dict[str, Any] | None) -> SafeString | None:
    if error is None:
        return None
    summary = f"{error['type']}: {error['message']}"
    cause = _error(error["cause"]) or ""
    return format_html("<details><summary>{}</summary><pre>{}</pre>{}</details>", summary, error["traceback"], cause)


def _link(promise_id: str) -> SafeString:
    url = reverse("admin:flows_promise_change", args=[quote(promise_id)])
    return format_html('<a href="{}">{}</a>', url, promise_id)
