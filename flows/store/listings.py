"""Lists promises for people, the newest first."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import LiteralString

from flows.domain.promise import Kind, Phase, State
from flows.store.sql import repeatable_rows

_CONDITIONS: dict[str, LiteralString] = {
    "prefix": "starts_with(id, %(prefix)s)",
    "state": "state = %(state)s",
    "phase": "phase = %(phase)s AND state = 'pending' AND deadline_at > now()",
    "group": '"group" = %(group)s',
    "function": "function = %(function)s",
    "kind": "kind = %(kind)s",
}

# Past its deadline a promise has timed out, written or not. Spelled out for each state, as indexes are.
_STATES: dict[str, LiteralString] = {
    State.PENDING: "state = 'pending' AND deadline_at > now() AND %(state)s <> ''",
    State.RESOLVED: "(state = %(state)s OR (kind = 'timer' AND state = 'pending' AND deadline_at <= now()))",
    State.TIMEDOUT: "(state = %(state)s OR (kind <> 'timer' AND state = 'pending' AND deadline_at <= now()))",
}

_LIST: LiteralString = """
SELECT id, kind, "group", function, created_at, left(note, 200) AS note, now() AS now,
    CASE WHEN NOT is_overdue THEN state WHEN kind = 'timer' THEN 'resolved' ELSE 'timedout' END AS state,
    CASE WHEN is_overdue THEN '' ELSE phase END AS phase,
    CASE WHEN is_overdue THEN deadline_at ELSE settled_at END AS settled_at
FROM (SELECT *, state = 'pending' AND deadline_at <= now() AS is_overdue FROM flows_promise WHERE """


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One promise in a list; ``now`` is the database's time of reading."""

    id: str
    kind: Kind
    group: str
    function: str
    state: State
    phase: Phase
    note: str
    created_at: datetime
    settled_at: datetime | None
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to list: promises with all of these; None, or an empty prefix, is no condition."""

    prefix: str = ""
    state: str | None = None
    phase: str | None = None
    group: str | None = None
    function: str | None = None
    kind: str | None = None


def list_promises(wanted: Wanted, limit: int) -> list[Listed]:
    """Return up to ``limit`` promises."""
    given = {field.name: value for field in fields(wanted) if (value := getattr(wanted, field.name))}
    known = _CONDITIONS | ({"state": _STATES[wanted.state]} if wanted.state in _STATES else {})
    conditions = " AND ".join(known[name] for name in given) or "true"
    found = repeatable_rows(
        _LIST + conditions + " ORDER BY created_at DESC LIMIT %(limit)s) AS listed", **given, limit=limit
    )
    return [
        Listed(**row | {"kind": Kind(row["kind"]), "state": State(row["state"]), "phase": Phase(row["phase"])})
        for row in found
    ]
