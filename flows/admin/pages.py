"""The lists and details of the three tables."""

from django.contrib import admin
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from flows.admin.lists import STATE_NOW, GroupFilter, ReadOnlyAdmin, StateFilter, shown_time
from flows.admin.markup import NOTHING, error_block, json_block, list_link, moment, promise_link, short_id
from flows.domain.promise import Phase, State
from flows.models import Attempt, Node, Promise

MAX_LISTED = 100
_GLYPHS = {
    State.PENDING: "…",
    State.RESOLVED: "✓",
    State.REJECTED: "✗",
    State.CANCELED: "⊘",
    State.TIMEDOUT: "⌛",
}


@admin.register(Promise)
class PromiseAdmin(ReadOnlyAdmin):
    """Promises by id prefix, state, kind and group."""

    list_display = ("short_id", "call", "state_word", "attempts_made", "node", "created", "settled")
    list_filter = (StateFilter, "phase", "kind", GroupFilter)
    list_select_related = ("node",)
    ordering = ("-created_at",)
    search_fields = ("id__startswith",)
    search_help_text = "An id, or how it begins"
    fieldsets = (
        (None, {"fields": ("id", "state_word", "call", "kind", "args_text", "value_text", "error_text", "note")}),
        ("Options of the call", {"fields": ("version_text", "addressee", "retry_text", "tags_text")}),
        ("Call graph", {"fields": ("root_link", "parent_link", "children_links", "continuation")}),
        ("Times", {"fields": ("created", "deadline", "settled", "ready", "sent", "sends")}),
        ("Attempts", {"fields": ("attempts_made", "fence", "node", "process", "claimed", "attempts_table")}),
    )

    created = shown_time("created_at")
    deadline = shown_time("deadline_at")
    settled = shown_time("settled_at")
    ready = shown_time("ready_at")
    sent = shown_time("sent_at")
    claimed = shown_time("claimed_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Promise]:
        """Return the promises with the state that they have now."""
        promises: QuerySet[Promise] = super().get_queryset(request)
        ended = Attempt.objects.filter(promise=OuterRef("pk")).order_by().values("promise")
        attempt_count = Subquery(ended.annotate(count=Count("*")).values("count"))
        return promises.annotate(state_now=STATE_NOW, attempt_count=Coalesce(attempt_count, 0))

    @admin.display(description="id", ordering="id")
    def short_id(self, promise: Promise) -> SafeString:
        """Return the id, shortened."""
        return short_id(promise.id)

    @admin.display(description="state", ordering="state")
    def state_word(self, promise: Promise) -> str:
        """Return the state as a glyph and a word, and where a pending promise stands."""
        state: str = promise.state_now  # type: ignore[attr-defined]  # annotated above
        stands = f", {promise.phase}" if promise.phase and state == State.PENDING else ""
        return f"{_GLYPHS[State(state)]} {state}{stands}"

    @admin.display(description="attempts")
    def attempts_made(self, promise: Promise) -> str:
        """Return how many attempts have ended, and how many of them raised or died. A claim may end without one."""
        troubles = ((promise.failures, "failed"), (promise.losses, "lost"))
        count: int = promise.attempt_count  # type: ignore[attr-defined]  # annotated above
        return ", ".join([str(count), *(f"{number} {word}" for number, word in troubles if number)])

    @admin.display(description="call")
    def call(self, promise: Promise) -> str:
        """Return what is called, as Celery names it."""
        return f"{promise.group}.{promise.function}"

    @admin.display(description="arguments")
    def args_text(self, promise: Promise) -> SafeString:
        """Return the arguments as JSON."""
        return json_block(promise.args)

    @admin.display(description="version")
    def version_text(self, promise: Promise) -> str:
        """Return the version of the function that the call keeps."""
        return str(promise.version or NOTHING)

    @admin.display(description="retry")
    def retry_text(self, promise: Promise) -> str:
        """Return the call's own retry policy."""
        return json_block(promise.retry) if promise.retry else NOTHING

    @admin.display(description="tags")
    def tags_text(self, promise: Promise) -> str:
        """Return the tags as JSON."""
        return json_block(promise.tags) if promise.tags else NOTHING

    @admin.display(description="value")
    def value_text(self, promise: Promise) -> str:
        """Return the value as JSON."""
        return json_block(promise.value) if promise.state == State.RESOLVED else NOTHING

    @admin.display(description="error")
    def error_text(self, promise: Promise) -> str:
        """Return the stored error, its traceback last."""
        return error_block(promise.error) or NOTHING

    @admin.display(description="process")
    def process(self, promise: Promise) -> str:
        """Return the id of the process that runs it."""
        return NOTHING if promise.session is None else str(promise.session >> 9)

    @admin.display(description="root")
    def root_link(self, promise: Promise) -> SafeString:
        """Return a link to the root of the lineage."""
        return promise_link(promise.root_id)

    @admin.display(description="parent")
    def parent_link(self, promise: Promise) -> str:
        """Return a link to the promise that made the call."""
        return promise_link(promise.parent_id) if promise.parent_id else NOTHING

    @admin.display(description="children")
    def children_links(self, promise: Promise) -> str:
        """Return links to the first calls that it made."""
        children = promise.children.annotate(state_now=STATE_NOW).order_by("position")
        found = list(children.values_list("id", "function", "state_now")[: MAX_LISTED + 1])
        lines = [(promise_link(id), function, state) for id, function, state in found[:MAX_LISTED]]
        more = list_link("promise", "all of them", parent=promise.id) if len(found) > MAX_LISTED else ""
        return format_html("{}{}", format_html_join("", "{} {} {}<br>", lines), more) or NOTHING

    @admin.display(description="ended attempts")
    def attempts_table(self, promise: Promise) -> SafeString:
        """Return the last attempts that have ended, oldest first."""
        attempts = list(promise.attempts.select_related("node").order_by("-fence")[: MAX_LISTED + 1])
        more = list_link("attempt", "earlier ones", promise=promise.id) if len(attempts) > MAX_LISTED else ""
        lines = [
            (
                each.fence,
                each.outcome,
                each.node or "",
                moment(each.started_at),
                moment(each.ended_at),
                error_block(each.error) or "",
            )
            for each in reversed(attempts[:MAX_LISTED])
        ]
        heads = format_html_join(
            "", "<th>{}</th>", [(head,) for head in ("#", "outcome", "node", "started", "ended", "error")]
        )
        cells = format_html_join("", "<tr>" + "<td>{}</td>" * 6 + "</tr>", lines)
        return format_html("{}<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", more, heads, cells)


@admin.register(Attempt)
class AttemptAdmin(ReadOnlyAdmin):
    """Ended attempts, newest first."""

    list_display = ("short_id", "fence", "outcome", "node", "started", "ended")
    list_filter = ("outcome",)
    list_select_related = ("node",)
    ordering = ("-id",)
    search_fields = ("promise__id__startswith",)
    search_help_text = "A promise's id, or how it begins"
    fields = ("promise_link", "fence", "outcome", "node", "started", "ended", "error_text")

    started = shown_time("started_at")
    ended = shown_time("ended_at")

    @admin.display(description="promise", ordering="promise")
    def short_id(self, attempt: Attempt) -> SafeString:
        """Return the promise's id, shortened."""
        return short_id(attempt.promise_id)

    @admin.display(description="promise")
    def promise_link(self, attempt: Attempt) -> SafeString:
        """Return a link to the promise."""
        return promise_link(attempt.promise_id)

    @admin.display(description="error")
    def error_text(self, attempt: Attempt) -> str:
        """Return the stored error, its traceback last."""
        return error_block(attempt.error) or NOTHING


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    """Worker processes, newest first."""

    list_display = ("name", "group_names", "hostname", "pid", "is_alive", "claims", "started", "lease")
    ordering = ("-id",)
    search_fields = ("name__startswith",)
    search_help_text = "A node's name, or how it begins"
    fields = (*list_display, "swept", "stopped")

    started = shown_time("started_at")
    lease = shown_time("lease_until")
    swept = shown_time("swept_at")
    stopped = shown_time("stopped_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        """Return the nodes with what can only be told now, by the database's clock."""
        claimed = Promise.objects.filter(node=OuterRef("pk"), phase=Phase.CLAIMED).order_by().values("node")
        claim_count = Subquery(claimed.annotate(count=Count("*")).values("count"))
        nodes: QuerySet[Node] = super().get_queryset(request)
        return nodes.annotate(alive=Q(lease_until__gt=Now(), stopped_at=None), claim_count=Coalesce(claim_count, 0))

    @admin.display(description="groups")
    def group_names(self, node: Node) -> str:
        """Return the groups that it serves."""
        return ", ".join(node.groups)

    @admin.display(description="alive", boolean=True)
    def is_alive(self, node: Node) -> bool:
        """Return True while its lease is renewed."""
        return bool(node.alive)  # type: ignore[attr-defined]  # annotated above

    @admin.display(description="running now")
    def claims(self, node: Node) -> int:
        """Return how many promises it has claimed."""
        return int(node.claim_count)  # type: ignore[attr-defined]  # annotated above
