"""Gives promises another chance: what waits, was set aside, was rejected, or hangs in a worker."""

from flows import logs
from flows.store import changes
from flows.store.claims import ReadyRef
from flows.store.joins import ready_refs
from flows.store.sql import rows
from flows.store.sweeps import GIVE_BACK

# For what was set aside, once the right code runs, and for what waits for its next attempt.
RETRY = """
UPDATE flows_promise SET phase = 'ready', ready_at = now(), sent_at = now(), sends = 0, note = ''
WHERE id = %(id)s AND state = 'pending' AND (phase = 'aside' OR (phase = 'ready' AND ready_at > now()))
RETURNING id, root_id, "group", function, addressee
"""

# A rejected promise, with the calls below that made it so: those whose failure nobody caught, down to the one that
# failed by itself; and those that were canceled because it was given up, or timed out with it. Each gets the time that
# it had at first. A failure that its caller caught stays: what the caller did then is recorded, too.
REOPEN = """
WITH RECURSIVE failed AS (
    SELECT id, state, error, settled_at AS ended_at FROM flows_promise
    WHERE id = %(id)s AND kind IN ('root', 'detached') AND state = 'rejected'
    UNION ALL
    SELECT c.id, c.state, c.error, CASE c.state WHEN 'canceled' THEN failed.ended_at ELSE c.settled_at END
    FROM failed JOIN flows_promise c ON c.parent_id = failed.id AND c.kind <> 'detached'
    WHERE (c.state IN ('rejected', 'timedout') AND c.id IN (SELECT json_array_elements_text(failed.error->'promises')))
        OR (c.settled_at >= failed.ended_at AND CASE c.state
            WHEN 'canceled' THEN failed.state = 'canceled' OR failed.error->>'type' = 'WorkerLost'
            WHEN 'timedout' THEN failed.state = 'timedout' END)
), due AS (
    SELECT id FROM flows_promise WHERE id IN (SELECT id FROM failed) ORDER BY id FOR UPDATE
), reopened AS (
    UPDATE flows_promise p
    SET state = 'pending', settled_at = NULL, error = NULL, note = '', failures = 0, losses = 0, sends = 0,
        deadline_at = now() + (p.deadline_at - COALESCE(p.reopened_at, p.created_at)), reopened_at = now(),
        ready_at = CASE WHEN p.kind NOT IN ('run', 'timer', 'external') THEN now() END, sent_at = now(),
        phase = CASE WHEN p.kind IN ('run', 'timer', 'external') THEN '' ELSE 'ready' END
    FROM due WHERE p.id = due.id AND p.state IN ('rejected', 'timedout', 'canceled')
    RETURNING p.id, p.root_id, p."group", p.function, p.addressee, p.phase
)
SELECT id, root_id, "group", function, addressee FROM reopened WHERE phase = 'ready'
"""

# From a holder that hangs: whatever it still writes is refused, as from then on it holds no claim.
RELEASE = (
    """
WITH held AS (
    SELECT id, node_id, session FROM flows_promise WHERE id = %(id)s AND phase = 'claimed' FOR UPDATE
)"""
    + GIVE_BACK
)


def retry(promise_id: str) -> list[ReadyRef]:
    """Make a promise ready that was set aside or waits for its next attempt; return it, or nothing."""
    found = rows(RETRY, id=promise_id)
    changes.tell(logs.NOTABLE, "retried", found)
    return ready_refs(found)


def reopen(promise_id: str) -> list[ReadyRef]:
    """Make a rejected root or detached promise, and the failed calls below it, pending again; return what is ready."""
    found = rows(REOPEN, id=promise_id)
    changes.tell(logs.NOTABLE, "reopened", found)
    return ready_refs(found)


def release(promise_id: str) -> list[ReadyRef]:
    """Take the claim on a promise back; return the promise, which is ready for others, or nothing."""
    found = rows(RELEASE, id=promise_id)
    changes.tell(logs.TROUBLE, "released", found)
    return ready_refs(found)
