"""Reads call trees for people, in one statement: promises with the state they have now, and their attempts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from flows.domain.errors import PromiseNotFound
from flows.domain.promise import AttemptOutcome, Kind, Phase, State
from flows.domain.tree import Tree, TreeAttempt, TreePromise, in_tree_order
from flows.store.sql import Row, repeatable_rows

MAX_PROMISES = 2_000
# Of each promise, the last ones: one that awaits its calls one by one has as many as it has calls.
MAX_ATTEMPTS = 100

# Level by level, so that a limit cuts off what is deepest. LATERAL with LIMIT makes each a look-up in an index, however
# many rows the planner expects.
TREE = """
WITH RECURSIVE tree AS (
    SELECT id, 0 AS depth FROM flows_promise WHERE id = %(id)s
    UNION ALL
    SELECT c.id, tree.depth + 1 FROM tree CROSS JOIN LATERAL (
        SELECT id FROM flows_promise WHERE parent_id = tree.id ORDER BY "position" LIMIT %(limit)s + 1) AS c
), found AS MATERIALIZED (
    SELECT id, depth FROM tree LIMIT %(limit)s + 1
)
SELECT p.id, p.parent_id, p.root_id, found.depth, p."position", p.kind, p."group", p.function, p.addressee, p.note,
    CASE WHEN NOT is_overdue THEN p.state WHEN p.kind = 'timer' THEN 'resolved' ELSE 'timedout' END AS state,
    CASE WHEN is_overdue THEN '' ELSE p.phase END AS phase,
    CASE WHEN is_overdue THEN p.deadline_at ELSE p.settled_at END AS settled_at,
    left(p.error->>'type' || ': ' || (p.error->>'message'), 300) AS error,
    p.created_at, p.deadline_at, p.ready_at, p.claimed_at, p.fence, p.failures, p.losses,
    holder.name AS node, p.continuation <> '' AND p.state = 'pending' AND NOT is_overdue AS is_awaited,
    a.fence AS attempt, a.outcome, a.started_at, a.ended_at, worker.name AS worker,
    left(a.error->>'type' || ': ' || (a.error->>'message'), 300) AS attempt_error, now() AS now
FROM found CROSS JOIN LATERAL (
    SELECT *, state = 'pending' AND deadline_at <= now() AS is_overdue FROM flows_promise WHERE id = found.id LIMIT 1
) AS p LEFT JOIN flows_node holder ON holder.id = p.node_id
LEFT JOIN LATERAL (
    SELECT * FROM flows_attempt WHERE promise_id = found.id ORDER BY fence DESC LIMIT %(attempts)s
) AS a ON true LEFT JOIN flows_node worker ON worker.id = a.node_id
ORDER BY found.depth, p.id, a.fence
"""

# What a list shows of each promise and cannot be had from its row.
FACTS = """
SELECT p.id, calls.made, calls.settled, tried.attempts,
    left(p.error->>'type' || ': ' || (p.error->>'message'), 300) AS error
FROM flows_promise p CROSS JOIN LATERAL (
    SELECT count(*) AS made, count(*) FILTER (WHERE is_settled) AS settled FROM (
        SELECT state <> 'pending' OR deadline_at <= now() AS is_settled FROM flows_promise
        WHERE parent_id = p.id LIMIT %(limit)s) AS few
) AS calls CROSS JOIN LATERAL (
    SELECT count(*) AS attempts FROM (SELECT FROM flows_attempt WHERE promise_id = p.id LIMIT %(limit)s) AS few
) AS tried WHERE p.id = ANY(%(ids)s)
"""
MAX_COUNTED = 1_000

# What a cancel would take with it, as far as it can be counted quickly.
PENDING_BELOW = """
WITH RECURSIVE tree AS (
    SELECT id, false AS is_below FROM flows_promise WHERE id = ANY(%(ids)s)
    UNION ALL
    SELECT c.id, true FROM tree CROSS JOIN LATERAL (
        SELECT id FROM flows_promise WHERE parent_id = tree.id AND kind <> 'detached' LIMIT %(limit)s) AS c
), found AS MATERIALIZED (
    SELECT DISTINCT id FROM (SELECT id FROM tree WHERE is_below LIMIT %(limit)s) AS few WHERE id <> ALL(%(ids)s)
)
SELECT count(*) AS pending FROM found CROSS JOIN LATERAL (
    SELECT FROM flows_promise WHERE id = found.id AND state = 'pending' AND deadline_at > now() LIMIT 1) AS p
"""

_OWN = ("id", "parent_id", "root_id", "depth", "position", "group", "function", "addressee", "note")
_TIMES = ("created_at", "deadline_at", "ready_at", "settled_at", "claimed_at")
_COUNTS = ("fence", "failures", "losses", "is_awaited")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """How many calls a promise made, how many of them have settled, and how many attempts have ended.

    Each is counted up to ``MAX_COUNTED``. ``error`` is one line.
    """

    made: int
    settled: int
    attempts: int
    error: str


def read_facts(promise_ids: Sequence[str]) -> dict[str, Facts]:
    """Return the facts of those of the promises that exist, by id."""
    found = repeatable_rows(FACTS, ids=list(promise_ids), limit=MAX_COUNTED)
    return {row.pop("id"): Facts(**row | {"error": _one_line(row["error"])}) for row in found}


def count_pending_below(promise_ids: Sequence[str]) -> int:
    """Return how many calls below the promises are pending, detached ones excepted; of the first ``MAX_COUNTED``."""
    return int(repeatable_rows(PENDING_BELOW, ids=list(promise_ids), limit=MAX_COUNTED)[0]["pending"])


def read_tree(promise_id: str, limit: int = MAX_PROMISES) -> Tree:
    """Return the promise and the calls below it, at most ``limit`` of them; raise ``PromiseNotFound``."""
    # PostgreSQL refuses to compare with a NUL.
    found = [] if "\x00" in promise_id else _read(promise_id, limit)
    if not found:
        raise PromiseNotFound(f"there is no promise {promise_id!r}")
    promises = [_promise(list(rows)) for _, rows in groupby(found, key=lambda row: row["id"])]
    return Tree(promises=tuple(in_tree_order(promises[:limit])), now=found[0]["now"], is_cut=len(promises) > limit)


def _read(promise_id: str, limit: int) -> list[Row]:
    return repeatable_rows(TREE, id=promise_id, limit=limit, attempts=MAX_ATTEMPTS)


def _promise(rows: list[Row]) -> TreePromise:
    row = rows[0]
    fields: dict[str, Any] = {name: row[name] for name in (*_OWN, *_TIMES, *_COUNTS)}
    return TreePromise(
        **fields,
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        phase=Phase(row["phase"]),
        error=_one_line(row["error"]),
        node=row["node"] or "",
        attempts=tuple(_attempts(rows)),
    )


def _attempts(rows: list[Row]) -> Iterable[TreeAttempt]:
    for row in rows:
        if row["attempt"] is not None:
            yield TreeAttempt(
                fence=row["attempt"],
                outcome=AttemptOutcome(row["outcome"]),
                node=row["worker"] or "",
                started_at=row["started_at"],
                ended_at=row["ended_at"],
                error=_one_line(row["attempt_error"]),
            )


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
