"""The three tables. Rows are read here and in the admin; every write is a statement of ``flows.store``."""

from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from flows.domain.ids import MAX_CHILD_ID
from flows.domain.promise import AttemptOutcome, Continuation, Kind, Phase, State

# From how many on a pending promise needs attention.
MANY_FAILURES = 3
MANY_LOSSES = 2


class JSONTextField(models.JSONField):
    """A ``json`` column: unlike ``jsonb`` it keeps the text as it was written: key order, 1e22, -0.0."""

    def db_type(self, connection: Any) -> str:
        """Return the column type."""
        return "json"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return ``value``: psycopg decodes ``json`` columns already."""
        return value


class IdField(models.CharField):  # type: ignore[type-arg]  # generic in its stubs only
    """A promise id, in byte order: prefix searches use the primary key's own index.

    Spelled out because Django adds a second, pattern index to whatever starts with ``varchar``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": MAX_CHILD_ID, "db_collation": "C", **kwargs})

    def db_type(self, connection: Any) -> str:
        """Return the column type."""
        return f"character varying({self.max_length})"


def _choices(words: Any) -> list[tuple[str, str]]:
    return [(word.value, word.value or "—") for word in words]


# What somebody should look at: it says why it does not go on, as all do that were set aside, or it keeps failing.
NEEDS_ATTENTION = Q(state=State.PENDING) & (~Q(note="") | Q(failures__gte=MANY_FAILURES) | Q(losses__gte=MANY_LOSSES))
WAITS_FOR_SOMEBODY = Q(state=State.PENDING, kind=Kind.EXTERNAL)
FAILED = Q(state__in=[State.REJECTED, State.CANCELED, State.TIMEDOUT])
SETTLED_FLOWS = Q(kind__in=[Kind.ROOT, Kind.DETACHED]) & ~Q(state=State.PENDING)
BROKEN_OFF = Q(outcome__in=[AttemptOutcome.LOST, AttemptOutcome.FENCED])


class Node(models.Model):
    """One worker process, alive while its lease is renewed."""

    name = models.CharField(max_length=255, help_text="Celery's node name")
    groups = JSONTextField(help_text="the groups that it serves")
    hostname = models.CharField(max_length=255)
    pid = models.IntegerField(help_text="process id of the worker's main process")
    started_at = models.DateTimeField(db_default=Now())
    lease_until = models.DateTimeField(help_text="its claims are void after this")
    swept_at = models.DateTimeField(null=True)
    stopped_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


class Promise(models.Model):
    """A write-once durable record of one call; settled, it is the checkpoint that a replay reads."""

    id = IdField(primary_key=True)
    root_id = IdField()
    parent = models.ForeignKey(
        "self", null=True, related_name="children", db_constraint=False, db_index=False, on_delete=models.DO_NOTHING
    )
    position = models.IntegerField(default=0, help_text="which call of the parent, from 0")
    kind = models.CharField(max_length=8, choices=_choices(Kind))

    group = models.CharField(max_length=100)
    addressee = models.CharField(max_length=255, blank=True, db_default="", help_text="the only node that may run it")
    function = models.CharField(max_length=150)
    version = models.IntegerField(null=True, help_text="of the function; empty until somebody who knows it runs it")
    args = JSONTextField()
    digest = models.CharField(max_length=32, blank=True, help_text="tells calls with other arguments apart")
    retry = JSONTextField(null=True, help_text="the call's own retry policy")
    tags = JSONTextField(db_default={}, help_text="strings by name")
    # Null, as most projects have none, and it takes no room.
    trace = models.TextField(null=True, help_text="W3C traceparent: its attempts' spans hang below")  # noqa: DJ001

    state = models.CharField(max_length=8, choices=_choices(State), default=State.PENDING)
    value = JSONTextField(null=True)
    error = JSONTextField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    deadline_at = models.DateTimeField()
    reopened_at = models.DateTimeField(null=True, help_text="when a retry last gave it its time again")
    settled_at = models.DateTimeField(null=True)

    phase = models.CharField(max_length=9, choices=_choices(Phase), blank=True)
    ready_at = models.DateTimeField(null=True, help_text="from when on a worker may claim it")
    sent_at = models.DateTimeField(null=True, help_text="when a message was last sent for it")
    sends = models.SmallIntegerField(default=0, help_text="messages sent again since it became ready")
    note = models.TextField(blank=True, help_text="why it does not go on")
    wake_at = models.IntegerField(db_default=0, help_text="goes on when so many of its awaited calls are pending")
    continuation = models.CharField(max_length=5, choices=_choices(Continuation), blank=True)

    fence = models.BigIntegerField(default=0, help_text="grows with each claim")
    node = models.ForeignKey(Node, null=True, db_constraint=False, db_index=False, on_delete=models.DO_NOTHING)
    session = models.IntegerField(null=True, help_text="database session of the claim: process id * 512 + count")
    claimed_at = models.DateTimeField(null=True)
    failures = models.IntegerField(default=0, help_text="attempts that raised")
    losses = models.IntegerField(default=0, help_text="attempts that ended with their process")

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="flows_promise_settled_once",
                condition=Q(state=State.PENDING, settled_at__isnull=True)
                | (~Q(state=State.PENDING) & Q(settled_at__isnull=False, phase=Phase.NONE)),
            ),
            models.CheckConstraint(
                name="flows_promise_outcome_fits_state",
                condition=(Q(state=State.REJECTED) & Q(error__isnull=False, value__isnull=True))
                | (~Q(state=State.REJECTED) & (Q(state=State.RESOLVED) | Q(value__isnull=True))),
            ),
            models.CheckConstraint(
                name="flows_promise_claimed_by_node",
                condition=Q(phase=Phase.CLAIMED, node__isnull=False, session__isnull=False)
                | (~Q(phase=Phase.CLAIMED) & Q(node__isnull=True, session__isnull=True)),
            ),
            models.CheckConstraint(
                name="flows_promise_ready_since",
                condition=~Q(phase__in=[Phase.READY, Phase.CLAIMED]) | Q(ready_at__isnull=False),
            ),
            models.UniqueConstraint(name="flows_promise_children", fields=["parent", "position"]),
        ]
        indexes = [
            # What may be claimed, and what is; and what waits for its calls, or was set aside. No index names anything
            # that a claim changes, so that a claim changes no index.
            models.Index(
                name="flows_promise_runnable",
                fields=["group", "ready_at"],
                condition=Q(settled_at__isnull=True, ready_at__isnull=False),
            ),
            models.Index(
                name="flows_promise_waiting",
                fields=["id"],
                condition=Q(settled_at__isnull=True, ready_at__isnull=True)
                & ~Q(kind__in=[Kind.RUN, Kind.TIMER, Kind.EXTERNAL]),
            ),
            models.Index(
                name="flows_promise_awaited",
                fields=["parent"],
                condition=Q(state=State.PENDING) & ~Q(continuation=Continuation.NONE),
            ),
            # Not by state alone: the planner would then read all of it to find the pending calls of one parent.
            models.Index(
                name="flows_promise_due",
                fields=["deadline_at"],
                condition=Q(state=State.PENDING, deadline_at__isnull=False),
            ),
            models.Index(name="flows_promise_created", fields=["-created_at"]),
            # What settled lately, and what is old enough to be purged.
            models.Index(name="flows_promise_settled", fields=["state", "settled_at"], condition=SETTLED_FLOWS),
            # The lists of the admin, newest first.
            models.Index(name="flows_promise_roots", fields=["-created_at"], condition=Q(kind=Kind.ROOT)),
            models.Index(name="flows_promise_called", fields=["group", "function", "-created_at"]),
            models.Index(name="flows_promise_attention", fields=["-created_at"], condition=NEEDS_ATTENTION),
            models.Index(name="flows_promise_external", fields=["-created_at"], condition=WAITS_FOR_SOMEBODY),
            models.Index(name="flows_promise_failed", fields=["state", "-created_at"], condition=FAILED),
        ]
        permissions = [
            ("cancel_promise", "Can cancel promises and all calls below them"),
            ("retry_promise", "Can give promises another chance"),
            ("release_promise", "Can take claims back from their nodes"),
            ("settle_promise", "Can resolve and reject external promises"),
            ("rerun_promise", "Can run flows again under a new id"),
            ("purge_promise", "Can delete flows that have ended"),
        ]

    def __str__(self) -> str:
        return str(self.id)


class Attempt(models.Model):
    """One pass of a worker over a promise; written when it ends."""

    promise = models.ForeignKey(
        Promise, related_name="attempts", db_constraint=False, db_index=False, on_delete=models.DO_NOTHING
    )
    fence = models.BigIntegerField(help_text="the claim's fencing token: 1 for the first attempt")
    node = models.ForeignKey(Node, null=True, db_constraint=False, db_index=False, on_delete=models.DO_NOTHING)
    session = models.IntegerField(null=True, help_text="database session of the claim: process id * 512 + count")
    outcome = models.CharField(max_length=9, choices=_choices(AttemptOutcome))
    error = JSONTextField(null=True)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(name="flows_attempt_of_promise", fields=["promise", "fence"])]
        indexes = [models.Index(name="flows_attempt_broken", fields=["outcome", "ended_at"], condition=BROKEN_OFF)]

    def __str__(self) -> str:
        return f"{self.promise_id} #{self.fence}"
