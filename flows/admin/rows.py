"""Attempts and nodes: lists and details of single rows."""

from collections.abc import Sequence

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.safestring import SafeString

from flows.admin.lists import ReadOnlyAdmin, shown_time
from flows.admin.markup import NOTHING, error_block, promise_link, short_id
from flows.models import Attempt, Node
from flows.store import nodes


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
        """Return the nodes, and whether each is alive by the database's clock."""
        rows: QuerySet[Node] = super().get_queryset(request)
        return rows.annotate(alive=Q(lease_until__gt=Now(), stopped_at=None))

    def complete(self, shown: Sequence[Node]) -> None:
        """Add how many promises each of the nodes has claimed."""
        counts = nodes.claim_counts([node.pk for node in shown])
        for node in shown:
            node.claim_count = counts.get(node.pk, 0)  # type: ignore[attr-defined]  # of what is shown alone

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Node | None:
        """Return the node with what it runs now, or None."""
        node: Node | None = super().get_object(request, object_id, from_field)
        if node is not None:
            self.complete([node])
        return node

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
        return int(node.claim_count)  # type: ignore[attr-defined]  # by `complete`
