"""Deletes flows that ended long ago: whole trees, in batches, beside workers that run.

A tree is a root, or a detached call, and the calls below it, up to the next detached one. It goes as a whole, once its
top has settled and nothing in it is pending. A detached call is kept for as long as its caller may yet be replayed:
without its record the caller would start it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from flows.domain.promise import State
from flows.store.sql import repeatable_rows, rows

# OFFSET keeps the planner from reading the whole table for it: it is a look-up by two primary keys.
_MAY_GO = """
    p.kind IN ('root', 'detached') AND p.state <> 'pending' AND NOT EXISTS (
        SELECT FROM flows_promise caller JOIN flows_promise top ON top.id = caller.root_id
        WHERE caller.id = p.parent_id AND caller.state <> 'resolved' AND top.state IN ('pending', 'rejected') OFFSET 0)
"""

_IS_OLD = "AND p.state = ANY(%(states)s) AND p.settled_at < now() - %(older_than)s AND" + _MAY_GO

# Whoever reopens a flow locks its top as well: either it is pending when it is looked at here, or it is gone there.
# Nothing else makes anything of a settled tree pending. Of a tree that is skipped nothing is deleted.
_DELETE = """
, tree AS (
    SELECT id AS top, id, state FROM due
    UNION ALL
    SELECT tree.top, c.id, c.state FROM tree CROSS JOIN LATERAL (
        SELECT id, state FROM flows_promise WHERE parent_id = tree.id AND kind <> 'detached' OFFSET 0) AS c
), whole AS (
    SELECT id, top FROM tree WHERE top NOT IN (SELECT top FROM tree WHERE state = 'pending')
), history AS (
    DELETE FROM flows_attempt WHERE promise_id = ANY(ARRAY(SELECT id FROM whole))
), gone AS (
    DELETE FROM flows_promise WHERE id = ANY(ARRAY(SELECT id FROM whole)) RETURNING id
)
SELECT (SELECT count(*) FROM gone) AS promises, (SELECT count(DISTINCT top) FROM whole) AS flows
"""

PURGE = (
    "WITH RECURSIVE due AS (SELECT id, state FROM flows_promise p WHERE true "
    + _IS_OLD
    + "ORDER BY settled_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)"
    + _DELETE
)

PURGE_TREE = (
    "WITH RECURSIVE due AS (SELECT id, state FROM flows_promise p WHERE id = %(id)s AND"
    + _MAY_GO
    + "FOR UPDATE)"
    + _DELETE
)

COUNT = "SELECT count(*) FROM (SELECT FROM flows_promise p WHERE true " + _IS_OLD + "LIMIT %(limit)s) AS few"


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """How many flows were deleted, and how many promises in all."""

    flows: int
    promises: int


def purge_tree(promise_id: str) -> Purged:
    """Delete a root or a detached call, and what is below it, if it may go."""
    return Purged(**rows(PURGE_TREE, id=promise_id)[0])


def purge(*, older_than: timedelta, states: Sequence[State], limit: int) -> Purged:
    """Delete up to ``limit`` flows that settled longer ago than ``older_than``, oldest first."""
    return Purged(**rows(PURGE, older_than=older_than, states=list(states), limit=limit)[0])


def count_old(*, older_than: timedelta, states: Sequence[State], limit: int) -> int:
    """Return how many flows ``purge`` would delete, up to ``limit``."""
    return int(repeatable_rows(COUNT, older_than=older_than, states=list(states), limit=limit)[0]["count"])
