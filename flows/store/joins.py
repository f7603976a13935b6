"""Wakes suspended parents. One compare-and-set, so that exactly one of many finishing children wakes a parent."""

from collections.abc import Iterable

from flows.store.claims import MAY_GO_ON, ReadyRef
from flows.store.sql import Row, rows

# What is in `due` was looked at as it was locked: its phase need not be asked for once more.
_WAKE = """
UPDATE flows_promise p SET phase = 'ready', ready_at = now(), sent_at = now(), sends = 0 FROM due WHERE p.id = due.id
RETURNING p.id, p."group", p.function, p.addressee, set_config('synchronous_commit', 'off', true)
"""

# Parents that wait for more are not locked: of many children each looks here as it ends. Those that may go on are, in
# the order in which they are given, so that two joins of the same parents cannot block each other. (One by one, and
# told that there are few, as promises are read.) Asynchronous: a wake-up that a crash undoes is found by the sweep.
JOIN = (
    """
WITH due AS MATERIALIZED (
    SELECT p.id
    FROM (SELECT id FROM unnest(%(ids)s::text[]) AS id LIMIT cardinality(%(ids)s::text[])) AS ended CROSS JOIN LATERAL (
        SELECT id FROM flows_promise p WHERE p.id = ended.id AND p.phase = 'suspended' AND"""
    + MAY_GO_ON
    + """FOR UPDATE
    ) AS p
)"""
    + _WAKE
)

# The same for every suspended promise: what was missed because a process died between a settlement and its join.
JOIN_MISSED = (
    """
WITH due AS (
    SELECT id FROM flows_promise p
    WHERE p.phase = 'suspended' AND p.settled_at IS NULL AND p.ready_at IS NULL
        AND p.kind NOT IN ('run', 'timer', 'external') AND"""
    + MAY_GO_ON
    + """ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)"""
    + _WAKE
)


def join(parent_ids: Iterable[str]) -> list[ReadyRef]:
    """Wake those of the promises that are suspended and have what they await; return them."""
    ids = sorted(set(parent_ids))
    return ready_refs(rows(JOIN, ids=ids), were_suspended=True) if ids else []


def join_missed(limit: int = 1000) -> list[ReadyRef]:
    """Wake up to ``limit`` suspended promises that nobody woke; return them."""
    return ready_refs(rows(JOIN_MISSED, limit=limit), were_suspended=True)


def ready_refs(found: Iterable[Row], *, were_suspended: bool = False) -> list[ReadyRef]:
    """Return what a message needs to know of each row."""
    names = ("id", "group", "function", "addressee")
    return [ReadyRef(was_suspended=were_suspended, **{name: row[name] for name in names}) for row in found]
