"""Cancels a promise and the tree of calls below it."""

from django.db import OperationalError

from flows import logs
from flows.store import changes
from flows.store.sql import connection, rows

# Detached calls have a lineage of their own, and local steps end with their function.
CANCEL = """
WITH RECURSIVE tree AS (
    SELECT id FROM flows_promise WHERE id = %(id)s AND kind <> 'run'
    UNION ALL
    SELECT c.id FROM flows_promise c JOIN tree ON c.parent_id = tree.id WHERE c.kind <> 'detached'
), due AS (
    SELECT id FROM flows_promise WHERE id IN (SELECT id FROM tree) AND state = 'pending' ORDER BY id FOR UPDATE
), canceled AS (
    UPDATE flows_promise p
    SET state = 'canceled', settled_at = clock_timestamp(), phase = '', node_id = NULL, session = NULL
    FROM due WHERE p.id = due.id AND p.state = 'pending'
    RETURNING p.id, p.root_id, p.parent_id, p.kind, p."group", p.function
)
SELECT id, root_id, parent_id, "group", function,
    CASE WHEN kind IN ('root', 'detached') THEN pg_notify('flows_settled', id) END AS notified
FROM canceled
"""

_TRIES = 3


def cancel_tree(promise_id: str) -> tuple[int, str | None]:
    """Cancel what is pending of the tree; return how many promises that were, and the parent to be woken."""
    canceled: list[tuple[str, str | None]] = []
    # Again until nothing is left: a commit that was under way may have added calls below a promise as it was canceled.
    while found := _cancel(promise_id):
        canceled += found
    return len(canceled), dict(canceled).get(promise_id)


def _cancel(promise_id: str) -> list[tuple[str, str | None]]:
    for tries_left in range(_TRIES, 0, -1):
        try:
            found = rows(CANCEL, id=promise_id)
        except OperationalError:
            # Commits lock the same rows in another order: PostgreSQL ends a deadlock by refusing one of the two.
            if tries_left == 1 or connection().in_atomic_block:
                raise
        else:
            changes.tell(logs.NOTABLE, "canceled", found)
            return [(row["id"], row["parent_id"]) for row in found]
    return []
