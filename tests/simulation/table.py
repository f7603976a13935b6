"""The table of promises in memory: its rows, and the constraints and invariants that no write may break."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from django.db import IntegrityError

from flows.domain.promise import Continuation, Kind, Phase, State


@dataclass(slots=True, kw_only=True)
class Record:
    """One row: the columns of ``flows.models.Promise``. ``args`` and ``value`` are JSON texts."""

    id: str
    root_id: str
    parent_id: str | None
    position: int
    kind: Kind
    group: str
    addressee: str
    function: str
    version: int | None
    args: str
    digest: str
    retry: dict[str, Any] | None
    tags: dict[str, str]
    created_at: datetime
    deadline_at: datetime
    state: State = State.PENDING
    value: str | None = None
    error: dict[str, Any] | None = None
    reopened_at: datetime | None = None
    settled_at: datetime | None = None
    phase: Phase = Phase.NONE
    ready_at: datetime | None = None
    sent_at: datetime | None = None
    sends: int = 0
    note: str = ""
    wake_at: int = 0
    continuation: Continuation = Continuation.NONE
    fence: int = 0
    node_id: int | None = None
    session: int | None = None
    claimed_at: datetime | None = None
    failures: int = 0
    losses: int = 0


class InvariantError(AssertionError):
    """A write broke an invariant of the promises."""


@dataclass
class Table:
    """Promises by id, those that are pending, and the children of each by position. ``update`` alone changes rows."""

    rows: dict[str, Record] = field(default_factory=dict)
    pending: dict[str, Record] = field(default_factory=dict)
    children: dict[str, dict[int, Record]] = field(default_factory=dict)
    # Kept, because an attempt takes what its step raises for the step's own failure.
    breaches: list[InvariantError] = field(default_factory=list)

    def insert(self, record: Record) -> None:
        """Add a row; raise ``IntegrityError`` if its id, or its place among its parent's calls, is taken."""
        self.check_free(record.id, record.parent_id, record.position)
        self.rows[record.id] = record
        if record.parent_id is not None:
            self.children.setdefault(record.parent_id, {})[record.position] = record
        self._index(record)

    def check_free(self, promise_id: str, parent_id: str | None, position: int) -> None:
        """Raise ``IntegrityError`` if no such row could be added."""
        if promise_id in self.rows or position in self.children.get(parent_id or "", {}):
            raise IntegrityError(f"{promise_id} is there already, or call {position} of {parent_id}")

    def update(self, record: Record, **changes: Any) -> None:
        """Set columns of a row that is pending; a settled one stays as it is."""
        if record.state is not State.PENDING:
            self._breach(f"{record.id} has settled, {record.state}, and is written again: {changes}")
        self.reopen(record, **changes)

    def reopen(self, record: Record, **changes: Any) -> None:
        """Set columns of any row."""
        if changes.get("fence", record.fence) < record.fence:
            self._breach(f"the fence of {record.id} falls from {record.fence} to {changes['fence']}")
        for column, value in changes.items():
            setattr(record, column, value)
        self._index(record)

    def _index(self, record: Record) -> None:
        if record.state is State.PENDING:
            self.pending[record.id] = record
        else:
            self.pending.pop(record.id, None)
        self._check(record)

    def _check(self, row: Record) -> None:
        is_pending, is_claimed = row.state is State.PENDING, row.phase is Phase.CLAIMED
        parent = self.rows.get(row.parent_id or "")
        rules = {
            "settled once": (row.settled_at is None) if is_pending else (row.settled_at and row.phase is Phase.NONE),
            "only what resolves has a value": row.state is State.RESOLVED or row.value is None,
            "what is rejected has an error": row.state is not State.REJECTED or row.error is not None,
            "claimed by a session": is_claimed == (row.node_id is not None) == (row.session is not None),
            "ready from when on": row.phase not in (Phase.READY, Phase.CLAIMED) or row.ready_at is not None,
            "not after its parent's deadline": (
                parent is None or row.kind is Kind.DETACHED or row.deadline_at <= parent.deadline_at
            ),
        }
        if not all(rules.values()):
            broken = ", ".join(rule for rule, holds in rules.items() if not holds)
            self._breach(f"{row.id} breaks: {broken}; {row}")

    def _breach(self, message: str) -> NoReturn:
        self.breaches.append(InvariantError(message))
        raise self.breaches[-1]
