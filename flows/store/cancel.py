"""Cancels a promise and the tree of calls below it."""

from flows.store.sql import rows

# Detached calls have a lineage of their own. Rows are locked in one order, parents and children alike.
CANCEL = """
WITH RECURSIVE tree AS (
    SELECT id FROM flows_promise WHERE id = %(id)s
    UNION ALL
    SELECT c.id FROM flows_promise c JOIN tree ON c.parent_id = tree.id WHERE c.kind <> 'detached'
), due AS (
    SELECT id FROM flows_promise WHERE id IN (SELECT id FROM tree) AND state = 'pending' ORDER BY id FOR UPDATE
), canceled AS (
    UPDATE flows_promise p
    SET state = 'canceled', settled_at = clock_timestamp(), phase = '', node_id = NULL, session = NULL
    FROM due WHERE p.id = due.id AND p.state = 'pending'
    RETURNING p.id, p.parent_id, p.kind
)
SELECT id, parent_id, CASE WHEN kind IN ('root', 'detached') THEN pg_notify('flows_settled', id) END AS notified
FROM canceled
"""


def cancel_tree(promise_id: str) -> tuple[int, str | None]:
    """Cancel what is pending of the tree; return how many promises that were, and the parent to be woken."""
    found = rows(CANCEL, id=promise_id)
    parents = [row["parent_id"] for row in found if row["id"] == promise_id]
    return len(found), parents[0] if parents else None
