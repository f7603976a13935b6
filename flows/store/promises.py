"""Starts promises and reads them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from flows import logs
from flows.conf import settings
from flows.domain.errors import PromiseConflict, PromiseNotFound
from flows.domain.promise import Kind, Phase, Promise, State
from flows.store import changes
from flows.store.sql import Row, repeatable_rows, rows

# Inserts the root, or finds the promise that has its id. A row that another transaction inserted meanwhile is in
# neither part: then the caller asks once more.
START = """
WITH born AS (
    INSERT INTO flows_promise (id, root_id, "position", kind, "group", addressee, function, version, args, digest,
        retry, tags, trace, state, phase, note, continuation, fence, failures, losses, sends, wake_at, deadline_at,
        ready_at, sent_at)
    VALUES (%(id)s, %(id)s, 0, 'root', %(group)s, %(addressee)s, %(function)s, %(version)s, %(args)s::json, %(digest)s,
        %(retry)s::json, %(tags)s::json, %(trace)s, 'pending', 'ready', '', '', 0, 0, 0, 0, 0,
        COALESCE(%(until)s, now() + %(timeout)s), now(), now())
    ON CONFLICT (id) DO NOTHING
    RETURNING kind, "group", function, digest
)
SELECT *, true AS is_new FROM born
UNION ALL
SELECT kind, "group", function, digest, false FROM flows_promise WHERE id = %(id)s AND NOT EXISTS (SELECT FROM born)
"""

# The end of a deadline or of a timer.
AT_ITS_DEADLINE = """
    state = CASE kind WHEN 'timer' THEN 'resolved' ELSE 'timedout' END, settled_at = deadline_at, phase = '',
    value = CASE kind WHEN 'timer' THEN 'null'::json END, node_id = NULL, session = NULL
"""

# Whoever reads a promise past its deadline settles it: what one reader has seen, no later write can change.
EXPIRE = (
    """UPDATE flows_promise SET"""
    + AT_ITS_DEADLINE
    + """WHERE id = ANY(%(ids)s) AND state = 'pending' AND deadline_at <= clock_timestamp()
    RETURNING id, root_id, kind, "group", function"""
)

# One by one: for a list of unknown length, and a table that was not counted yet, PostgreSQL reads the whole table. (The
# LIMIT tells the planner that the list is short: for ten, which it takes any list for, it would plan each read anew.)
READ = """
SELECT p.*
FROM (SELECT id FROM unnest(%(ids)s::text[]) AS id LIMIT cardinality(%(ids)s::text[])) AS wanted CROSS JOIN LATERAL (
    SELECT id, root_id, parent_id, kind, "group", function, version, args, tags, state, phase, value, error, note,
        created_at, deadline_at, settled_at, state = 'pending' AND deadline_at <= clock_timestamp() AS is_overdue
    FROM flows_promise WHERE id = wanted.id OFFSET 0
) AS p
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

# Only what is external has nobody else to settle it.
SETTLE = """
UPDATE flows_promise
SET state = %(state)s, value = %(value)s::json, error = %(error)s::json, settled_at = clock_timestamp()
WHERE id = %(id)s AND kind = 'external' AND state = 'pending' AND deadline_at > clock_timestamp()
RETURNING id, root_id, parent_id, "group", function
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A root call to be started; its fields are as those of ``Call``.

    ``trace`` is the W3C traceparent that its attempts' spans hang below.
    """

    id: str
    group: str
    function: str
    args: str
    digest: str
    timeout: timedelta | datetime | None = None
    addressee: str = ""
    version: int | None = None
    retry: dict[str, Any] | None = None
    tags: dict[str, str] = field(default_factory=dict)
    trace: str | None = None


def start(call: Start) -> bool:
    """Start ``call`` in the caller's transaction, if there is one; return False if it had been started before.

    Raises ``PromiseConflict`` if the id belongs to another call; nothing is written then.
    """
    timeout = call.timeout if call.timeout is not None else settings.TIMEOUT
    for _ in range(2):
        found = repeatable_rows(
            START,
            id=call.id,
            group=call.group,
            addressee=call.addressee,
            function=call.function,
            version=call.version,
            args=call.args,
            digest=call.digest,
            retry=json.dumps(call.retry) if call.retry else None,
            tags=json.dumps(call.tags),
            trace=call.trace,
            until=timeout if isinstance(timeout, datetime) else None,
            timeout=timeout if isinstance(timeout, timedelta) else None,
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
    if recorded["is_new"]:
        named = {"id": call.id, "root_id": call.id, "group": call.group, "function": call.function}
        changes.tell(logs.NOTABLE, "started", [named])
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
        expired = rows(EXPIRE, ids=overdue)
        changes.tell(logs.NOTABLE, "timedout", [row for row in expired if row["kind"] != Kind.TIMER])
        found = repeatable_rows(READ, ids=ids)
    return [_promise(row) for row in found]


def children(promise_id: str, limit: int) -> list[str]:
    """Return the ids of the calls that the promise made, detached ones included, in call order."""
    return [row["id"] for row in repeatable_rows(CHILDREN, id=promise_id, limit=limit)]


def attempts(promise_id: str, limit: int = 1000) -> list[Row]:
    """Return the last attempts, the running one at the end: fence, node, pid, outcome, error, started_at, ended_at."""
    return repeatable_rows(ATTEMPTS, id=promise_id, limit=limit)[::-1]


def settle(
    promise_id: str, state: State, *, value: str | None = None, error: dict[str, Any] | None = None
) -> str | None:
    """Settle an external promise; return the id of its parent, None if it was not pending and external.

    ``value`` is JSON text.
    """
    given = json.dumps(error) if error else None
    found = rows(SETTLE, id=promise_id, state=state, value=value, error=given)
    changes.tell(logs.NOTABLE, state, found)
    return str(found[0]["parent_id"]) if found else None


def note(promise_id: str, reason: str) -> None:
    """Record why a pending promise does not go on."""
    repeatable_rows(NOTE, id=promise_id, note=reason)


def _promise(row: Row) -> Promise:
    fields: dict[str, Any] = {name: value for name, value in row.items() if name != "is_overdue"}
    fields |= {"kind": Kind(row["kind"]), "state": State(row["state"]), "phase": Phase(row["phase"])}
    return Promise(**fields)
