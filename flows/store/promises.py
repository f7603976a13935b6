"""Starts promises and reads them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flows.domain.errors import PromiseConflict, PromiseNotFound
from flows.domain.promise import Kind, Phase, Promise, State
from flows.store.claims import ReadyRef
from flows.store.sql import Row, repeatable_rows, rows

# Inserts the root, or finds the promise that has its id. A row that another transaction inserted meanwhile is in
# neither part: then the caller asks once more.
START = """
WITH born AS (
    INSERT INTO flows_promise (id, root_id, "position", kind, "group", function, args, digest, state, phase, note,
        continuation, fence, failures, losses, sends, deadline_at, ready_at, sent_at)
    VALUES (%(id)s, %(id)s, 0, 'root', %(group)s, %(function)s, %(args)s::json, %(digest)s, 'pending', 'ready', '',
        '', 0, 0, 0, 0, now() + %(timeout)s, now(), now())
    ON CONFLICT (id) DO NOTHING
    RETURNING kind, "group", function, digest
)
SELECT *, true AS is_new FROM born
UNION ALL
SELECT kind, "group", function, digest, false FROM flows_promise WHERE id = %(id)s AND NOT EXISTS (SELECT FROM born)
"""

# Whoever reads a promise past its deadline settles it: what one reader has seen, no later write can change.
EXPIRE = """
UPDATE flows_promise
SET state = CASE kind WHEN 'timer' THEN 'resolved' ELSE 'timedout' END, settled_at = deadline_at, phase = '',
    value = CASE kind WHEN 'timer' THEN 'null'::json END, node_id = NULL, session = NULL
WHERE id = ANY(%(ids)s) AND state = 'pending' AND deadline_at <= clock_timestamp()
"""

READ = """
SELECT id, root_id, parent_id, kind, "group", function, args, state, phase, value, error, note,
    created_at, deadline_at, settled_at, state = 'pending' AND deadline_at <= clock_timestamp() AS is_overdue
FROM flows_promise WHERE id = ANY(%(ids)s)
"""

CHILDREN = """SELECT id FROM flows_promise WHERE parent_id = %(id)s ORDER BY "position" LIMIT %(limit)s"""

ATTEMPTS = """
SELECT a.fence, n.name AS node, a.session >> 9 AS pid, a.outcome, a.error, a.started_at, a.ended_at
FROM flows_attempt a LEFT JOIN flows_node n ON n.id = a.node_id WHERE a.promise_id = %(id)s
UNION ALL
SELECT p.fence, n.name, p.session >> 9, 'claimed', NULL, p.claimed_at, NULL
FROM flows_promise p LEFT JOIN flows_node n ON n.id = p.node_id WHERE p.id = %(id)s AND p.phase = 'claimed'
ORDER BY fence DESC LIMIT %(limit)s
"""

NOTE = """UPDATE flows_promise SET note = %(note)s WHERE id = %(id)s AND state = 'pending'"""


# For what was set aside, once the right code runs, and for what waits for its next attempt.
RETRY = """
UPDATE flows_promise SET phase = 'ready', ready_at = now(), sent_at = now(), sends = 0, note = ''
WHERE id = %(id)s AND state = 'pending' AND (phase = 'aside' OR (phase = 'ready' AND ready_at > now()))
RETURNING id, "group", function
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A call to be started. ``args`` is JSON text, ``digest`` that of its arguments."""

    id: str
    group: str
    function: str
    args: str
    digest: str
    timeout: timedelta


def start(call: Start) -> bool:
    """Start ``call`` in the caller's transaction, if there is one; return False if it had been started before.

    Raises ``PromiseConflict`` if the id belongs to another call; nothing is written then.
    """
    for _ in range(2):
        found = repeatable_rows(
            START,
            id=call.id,
            group=call.group,
            function=call.function,
            args=call.args,
            digest=call.digest,
            timeout=call.timeout,
        )
        if found:
            break
    recorded = found[0]
    if (recorded["kind"], recorded["group"], recorded["function"], recorded["digest"]) != (
        Kind.ROOT,
        call.group,
        call.function,
        call.digest,
    ):
        raise PromiseConflict(
            f"promise {call.id!r} exists already, as {recorded['kind']} {recorded['group']}.{recorded['function']} "
            f"(arguments {recorded['digest'][:8]}), not as {Kind.ROOT} {call.group}.{call.function} "
            f"(arguments {call.digest[:8]}); use another id, or make the same call"
        )
    return bool(recorded["is_new"])


def get(promise_id: str) -> Promise:
    """Return the promise; raise ``PromiseNotFound``."""
    found = get_many([promise_id])
    if not found:
        raise PromiseNotFound(f"there is no promise {promise_id!r}")
    return found[0]


def get_many(promise_ids: Iterable[str]) -> list[Promise]:
    """Return those of the promises that exist. What is past its deadline is settled first."""
    ids = [promise_id for promise_id in promise_ids if "\x00" not in promise_id]  # which PostgreSQL refuses
    found = repeatable_rows(READ, ids=ids)
    if overdue := [row["id"] for row in found if row["is_overdue"]]:
        rows(EXPIRE, ids=overdue)
        found = repeatable_rows(READ, ids=ids)
    return [_promise(row) for row in found]


def children(promise_id: str, limit: int) -> list[str]:
    """Return the ids of the calls that the promise made, detached ones included, in call order."""
    return [row["id"] for row in repeatable_rows(CHILDREN, id=promise_id, limit=limit)]


def attempts(promise_id: str, limit: int = 1000) -> list[Row]:
    """Return the last attempts, the running one at the end: fence, node, pid, outcome, error, started_at, ended_at."""
    return repeatable_rows(ATTEMPTS, id=promise_id, limit=limit)[::-1]


def retry(promise_id: str) -> ReadyRef | None:
    """Make a promise ready that was set aside or waits for its next attempt; None if it does neither."""
    found = rows(RETRY, id=promise_id)
    return ReadyRef(id=found[0]["id"], group=found[0]["group"], function=found[0]["function"]) if found else None


def note(promise_id: str, reason: str) -> None:
    """Record why a pending promise does not go on."""
    rows(NOTE, id=promise_id, note=reason)


def _promise(row: Row) -> Promise:
    fields: dict[str, Any] = {name: value for name, value in row.items() if name != "is_overdue"}
    fields |= {"kind": Kind(row["kind"]), "state": State(row["state"]), "phase": Phase(row["phase"])}
    return Promise(**fields)
