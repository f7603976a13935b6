"""Promises: the list, and the pages of one of them."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, path
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from flows.admin import actions, detail, lists, overview
from flows.admin.filters import (
    STATE_NOW,
    CreatedFilter,
    FunctionFilter,
    GroupFilter,
    NeedsFilter,
    RoleFilter,
    StateFilter,
)
from flows.admin.lists import CompletedList, ReadOnlyAdmin
from flows.admin.markup import NOTHING, duration, one_line, short_id, state_label
from flows.domain.promise import Kind, Phase, State
from flows.models import Promise
from flows.store import trees
from flows.store.trees import Facts

_NO_FACTS = Facts(made=0, settled=0, attempts=0, error="")


class PromiseChangeList(CompletedList):
    """A page of promises, and the way to older ones."""

    @cached_property
    def older_query(self) -> str:
        """The query that goes on where paging ends, empty if all can be paged through."""
        if self.result_count < lists.MAX_COUNTED or not self.result_list or self.query:
            return ""
        last = self.result_list[-1].created_at.isoformat()
        return self.get_query_string({"created_at__lt": last}, remove=["p"])


@admin.register(Promise)
class PromiseAdmin(ReadOnlyAdmin):
    """Promises by what they need, their role, state, function, group and time."""

    list_display = ("short_id", "state_label", "call", "role", "calls", "attempts", "time", "trouble", "holder")
    list_filter = (NeedsFilter, RoleFilter, StateFilter, CreatedFilter, GroupFilter, FunctionFilter)
    list_select_related = ("node",)
    # Newest first, or by id when searched: no other order has an index.
    ordering = ("-created_at",)
    sortable_by = ()
    search_fields = ("id__startswith",)
    search_help_text = "An id, or how it begins"
    change_list_template = "admin/flows/promise/change_list.html"
    actions = actions.BULK

    def get_queryset(self, request: HttpRequest) -> QuerySet[Promise]:
        """Return the promises with the state that they have now, without what may be large."""
        promises: QuerySet[Promise] = super().get_queryset(request)
        return promises.annotate(state_now=STATE_NOW, clock=Now()).defer("args", "value", "error", "retry", "tags")

    def complete(self, shown: Sequence[Promise]) -> None:
        """Add what stands in other rows than theirs: calls, attempts."""
        facts = trees.read_facts([promise.id for promise in shown])
        for promise in shown:
            promise.facts = facts.get(promise.id, _NO_FACTS)  # type: ignore[attr-defined]  # of a page alone

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return the actions that the user may do."""
        found = super().get_actions(request).items()
        return {name: each for name, each in found if actions.ACTIONS[name].is_allowed(request)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the class of the page of the list."""
        return PromiseChangeList

    def get_urls(self) -> list[URLPattern]:
        """Return the addresses of the actions and downloads, before those of Django."""
        view = self.admin_site.admin_view
        return [
            path("overview/", view(self.overview_view), name="flows_promise_overview"),
            path("do/<slug:name>/", view(self.action_view), name="flows_promise_do"),
            path("<path:object_id>/download/<slug:part>/", view(self.download_view), name="flows_promise_download"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, or ask about an action."""
        return super().changelist_view(request, {"title": "Promises", **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show one promise; a live page asks for the drawing of its calls alone."""
        return detail.show(self, request, object_id)

    def overview_view(self, request: HttpRequest) -> HttpResponse:
        """Show what operators watch."""
        return overview.show(self, request)

    def action_view(self, request: HttpRequest, name: str) -> HttpResponseBase:
        """Ask whether an action is meant, or do it."""
        return actions.confirm_or_do(self, request, name)

    def download_view(self, request: HttpRequest, object_id: str, part: str) -> HttpResponse:
        """Return a stored value as a file."""
        return detail.download(self, request, object_id, part)

    @admin.display(description="id")
    def short_id(self, promise: Promise) -> SafeString:
        """Return the id, shortened."""
        return short_id(promise.id)

    @admin.display(description="state")
    def state_label(self, promise: Promise) -> SafeString:
        """Return the state as a glyph, a word and a colour, and where a pending promise stands."""
        state = State(promise.state_now)  # type: ignore[attr-defined]  # annotated above
        phase = Phase(promise.phase) if state is State.PENDING else Phase.NONE
        stands = phase.value or ("waits for somebody" if _waits_for_somebody(promise, state) else "")
        return state_label(state, stands)

    @admin.display(description="function")
    def call(self, promise: Promise) -> SafeString:
        """Return what is called, and for which group."""
        return format_html(
            '{}<br><span class="fl-quiet">{}</span>', one_line(promise.function or NOTHING, 40), promise.group
        )

    @admin.display(description="role")
    def role(self, promise: Promise) -> str:
        """Return what it is in its flow."""
        return promise.kind

    @admin.display(description="calls")
    def calls(self, promise: Promise) -> str:
        """Return how many of its direct calls have settled."""
        facts = _facts(promise)
        more = "+" if facts.made >= trees.MAX_COUNTED else ""
        return f"{facts.settled} / {facts.made}{more}" if facts.made else NOTHING

    @admin.display(description="attempts")
    def attempts(self, promise: Promise) -> str:
        """Return how many attempts have ended, and how many of them raised or died. A claim may end without one."""
        troubles = ((promise.failures, "failed"), (promise.losses, "lost"))
        return ", ".join([str(_facts(promise).attempts), *(f"{number} {word}" for number, word in troubles if number)])

    @admin.display(description="age or time")
    def time(self, promise: Promise) -> SafeString:
        """Return how long it took, or how old it is."""
        return duration(promise.created_at, promise.settled_at, now=promise.clock)  # type: ignore[attr-defined]  # as above

    @admin.display(description="last error")
    def trouble(self, promise: Promise) -> SafeString | str:
        """Return why it does not go on, or why it failed, in one line."""
        text = promise.note or _facts(promise).error
        return format_html('<span class="fl-bad-text">{}</span>', one_line(text, 90)) if text else NOTHING

    @admin.display(description="held by")
    def holder(self, promise: Promise) -> str:
        """Return the node that runs it."""
        if promise.phase != Phase.CLAIMED:
            return NOTHING
        return promise.node.name if promise.node else "a node that is gone"


def _facts(promise: Promise) -> Facts:
    found: Facts = getattr(promise, "facts", _NO_FACTS)
    return found


def _waits_for_somebody(promise: Promise, state: State) -> bool:
    return promise.kind == Kind.EXTERNAL and state is State.PENDING
