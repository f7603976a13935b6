"""What a sweep finds: lost claims, due deadlines, messages to send again. Safe for any number of sweepers at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import OperationalError

from flows import logs
from flows.conf import settings
from flows.store import changes
from flows.store.claims import ReadyRef
from flows.store.joins import ready_refs
from flows.store.nodes import LOCK_SPACE
from flows.store.promises import AT_ITS_DEADLINE
from flows.store.sql import is_about_locks, rows

# A claim is lost when its node's lease has ended, or when the lock of its session is gone. A node that comes back from
# a pause, or from an outage of PostgreSQL, may claim before it beats: what it claims then has a lease of its own.
RECOVER = """
WITH alive AS MATERIALIZED (
    SELECT classid::bigint AS space, objid::bigint AS session FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
), lost AS (
    SELECT p.id, p.node_id, p.session, p.fence, p.claimed_at, p.losses + 1 >= %(max_losses)s AS is_poison
    FROM flows_promise p LEFT JOIN flows_node n ON n.id = p.node_id
    WHERE p.phase = 'claimed' AND p.settled_at IS NULL AND p.ready_at IS NOT NULL AND (n.id IS NULL
        OR GREATEST(n.lease_until, p.claimed_at + %(lease)s) < now() OR (%(locks)s AND NOT EXISTS (
        SELECT FROM alive WHERE alive.space = p.node_id + %(space)s AND alive.session = p.session)))
    ORDER BY p."group", p.ready_at, p.id LIMIT %(limit)s FOR UPDATE OF p SKIP LOCKED
), freed AS (
    UPDATE flows_promise p
    SET losses = p.losses + 1, node_id = NULL, session = NULL, sends = 0, sent_at = now(),
        phase = CASE WHEN is_poison THEN '' ELSE 'ready' END, ready_at = CASE WHEN is_poison THEN NULL ELSE now() END,
        state = CASE WHEN is_poison THEN 'rejected' ELSE 'pending' END,
        settled_at = CASE WHEN is_poison THEN clock_timestamp() END,
        error = CASE WHEN is_poison THEN json_build_object('type', 'WorkerLost', 'message', (p.losses + 1)
            || ' attempts in a row ended without an outcome', 'traceback', '', 'cause', NULL) ELSE p.error END
    FROM lost WHERE p.id = lost.id
    RETURNING p.id, p.root_id, p.parent_id, p.kind, p."group", p.function, p.addressee, p.state, p.fence AS attempt,
        lost.node_id
), attempt AS (
    INSERT INTO flows_attempt (promise_id, fence, node_id, session, outcome, started_at)
    SELECT id, fence, node_id, session, 'lost', claimed_at FROM lost ON CONFLICT (promise_id, fence) DO NOTHING
)
SELECT id, root_id, parent_id, "group", function, addressee, state, attempt,
    (SELECT name FROM flows_node n WHERE n.id = freed.node_id) AS node,
    CASE WHEN state <> 'pending' AND kind IN ('root', 'detached') THEN pg_notify('flows_settled', id) END AS notified
FROM freed
"""

# Gives the claims of `held` back. What a node gives up by itself, or is relieved of by people, is no loss: nothing says
# that the promise would end another worker, too.
GIVE_BACK = """
, freed AS (
    UPDATE flows_promise p
    SET node_id = NULL, session = NULL, sends = 0, sent_at = now(), phase = 'ready', ready_at = now()
    FROM held WHERE p.id = held.id
    RETURNING p.id, p.root_id, p."group", p.function, p.addressee, p.fence, held.node_id, held.session, p.claimed_at
), attempt AS (
    INSERT INTO flows_attempt (promise_id, fence, node_id, session, outcome, started_at)
    SELECT id, fence, node_id, session, 'lost', claimed_at FROM freed ON CONFLICT (promise_id, fence) DO NOTHING
)
SELECT id, root_id, "group", function, addressee, fence AS attempt,
    (SELECT name FROM flows_node n WHERE n.id = freed.node_id) AS node
FROM freed
"""

HAND_BACK = (
    """
WITH held AS (
    SELECT id, node_id, session FROM flows_promise
    WHERE phase = 'claimed' AND settled_at IS NULL AND ready_at IS NOT NULL AND node_id = %(node)s
    ORDER BY id FOR UPDATE
)"""
    + GIVE_BACK
)

EXPIRE_DUE = (
    """
WITH due AS (
    SELECT id FROM flows_promise WHERE state = 'pending' AND deadline_at <= now()
    ORDER BY deadline_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), expired AS (
    UPDATE flows_promise p SET"""
    + AT_ITS_DEADLINE
    + """FROM due WHERE p.id = due.id
    RETURNING p.id, p.root_id, p.parent_id, p.kind, p."group", p.function
)
SELECT id, root_id, parent_id, kind, "group", function,
    CASE WHEN kind IN ('root', 'detached') THEN pg_notify('flows_settled', id) END AS notified
FROM expired
"""
)

# Nobody serves the group, or no node has the address, for some seconds already; cleared by the next claim.
UNSERVED = """
WITH unserved AS (
    SELECT id FROM flows_promise p
    WHERE p.phase = 'ready' AND p.settled_at IS NULL AND p.note = '' AND p.ready_at < now() - %(lease)s AND NOT EXISTS (
        SELECT FROM flows_node n, json_array_elements_text(n.groups) served
        WHERE n.lease_until > now() AND served = p."group" AND p.addressee IN ('', n.name, n.pid::text))
    ORDER BY "group", ready_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE flows_promise p SET note = CASE p.addressee WHEN '' THEN 'no live node serves group ' || p."group"
    ELSE 'no live node ' || p.addressee || ' serves group ' || p."group" END || '; start a worker for its queue'
FROM unserved WHERE p.id = unserved.id
RETURNING p."group"
"""

# How long after it was sent a message is overdue: the wait doubles with each one, up to 32 sweeps, so that a group
# without workers is not flooded.
OVERDUE_AFTER = "%(every)s * power(2, LEAST(sends, 5))"

# Whether a deadline, a timer, or a promise of `groups` is due, and in how many seconds the next one will be, or the
# message for one of the oldest will be overdue: looked up at the ends of two indexes. (Where many wait, one after the
# other is overdue: they are looked at no more than five times between two sweeps.)
# The LIMIT of `served` tells the planner that there are few: for ten, which it takes any list for, it would plan anew
# each time, which takes it longer than the look. And the first of each is asked for, in the order of its index, not
# whether there is one, nor the least of them: where many are ready in other groups the planner hopes to meet one soon,
# and reads the table; where it knows of few that are pending it reads all of these.
DUE = (
    """
WITH served AS (SELECT name FROM unnest(%(groups)s::text[]) AS name LIMIT cardinality(%(groups)s::text[]))
SELECT LEAST(
        (SELECT deadline_at FROM flows_promise WHERE state = 'pending' AND deadline_at <= now()
            ORDER BY deadline_at LIMIT 1),
        (SELECT min(first.ready_at) FROM served CROSS JOIN LATERAL (
            SELECT ready_at FROM flows_promise
            WHERE phase = 'ready' AND settled_at IS NULL AND "group" = served.name AND ready_at <= now()
            ORDER BY ready_at LIMIT 1) AS first)
    ) IS NOT NULL AS is_due,
    extract(epoch FROM LEAST(
        (SELECT deadline_at FROM flows_promise WHERE %(deadlines)s AND state = 'pending' AND deadline_at > now()
            ORDER BY deadline_at LIMIT 1),
        (SELECT min(next.ready_at) FROM served CROSS JOIN LATERAL (
            SELECT ready_at FROM flows_promise
            WHERE phase = 'ready' AND settled_at IS NULL AND "group" = served.name AND ready_at > now()
            ORDER BY ready_at LIMIT 1) AS next),
        (SELECT min(GREATEST(oldest.overdue_at, now() + %(every)s / 5))
            FROM served CROSS JOIN LATERAL (
            SELECT sent_at + """
    + OVERDUE_AFTER
    + """ AS overdue_at FROM flows_promise
            WHERE phase = 'ready' AND settled_at IS NULL AND "group" = served.name AND ready_at <= now()
            ORDER BY ready_at LIMIT 10) AS oldest
            WHERE oldest.overdue_at > now())
    ) - clock_timestamp())::float8 AS seconds
"""
)

# Notes that messages are sent before they are: whoever comes for one must not find the promise locked by who notes it.
# Of two nodes that look at once one has it. If that one dies between the two, the promise waits until its message would
# be overdue. Asynchronous, as is NOT_SENT: nobody waits for a flush at these locks, and a note that is lost makes one
# message more.
TAKE_UNSENT = (
    """
WITH unsent AS (
    SELECT id FROM flows_promise
    WHERE phase = 'ready' AND settled_at IS NULL AND "group" = ANY(%(groups)s) AND ready_at <= now()
        AND addressee = ANY(%(addresses)s)
        AND (addressee <> '' OR "group" || '.' || function <> ALL(%(attended)s))
        AND (sent_at IS NULL OR sent_at < now() - """
    + OVERDUE_AFTER
    + """)
    ORDER BY ready_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE flows_promise p SET sent_at = now(), sends = LEAST(p.sends + 1, 100) FROM unsent WHERE p.id = unsent.id
RETURNING p.id, p."group", p.function, p.addressee, set_config('synchronous_commit', 'off', true)
"""
)

# Waits for the locks of those who only look, not of those who have something open.
NOT_SENT = """
WITH unsent AS (
    SELECT id FROM flows_promise
    WHERE id = ANY(%(ids)s) AND phase = 'ready' AND (SELECT set_config('lock_timeout', '50ms', true)) <> ''
    ORDER BY id FOR UPDATE
)
UPDATE flows_promise p SET sent_at = NULL, sends = GREATEST(p.sends - 1, 0) FROM unsent WHERE p.id = unsent.id
RETURNING set_config('synchronous_commit', 'off', true)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What became of lost claims: promises that are ready again, and those that were given up with their parents."""

    ready: list[ReadyRef]
    rejected_ids: list[str]
    parent_ids: list[str]


def recover(limit: int = 500) -> Recovered:
    """Take lost claims back; reject what has lost too many workers."""
    found = rows(
        RECOVER,
        locks=settings.SESSION_LOCKS,
        space=LOCK_SPACE,
        lease=settings.LEASE,
        max_losses=settings.MAX_LOSSES,
        limit=limit,
    )
    changes.tell(logs.TROUBLE, "lost", found)
    ready = ready_refs(row for row in found if row["state"] == "pending")
    rejected = [row for row in found if row["state"] != "pending"]
    changes.tell(logs.TROUBLE, "rejected", rejected)
    return Recovered(
        ready=ready,
        rejected_ids=[row["id"] for row in rejected],
        parent_ids=[row["parent_id"] for row in rejected if row["parent_id"]],
    )


def hand_back(node_id: int) -> list[ReadyRef]:
    """Take back all claims of a node that stops; return the promises, which are ready for others."""
    found = rows(HAND_BACK, node=node_id)
    changes.tell(logs.TROUBLE, "released", found)
    return ready_refs(found)


def expire_due(limit: int = 1000) -> list[str]:
    """Settle timers and deadlines that are due; return the ids of the parents."""
    found = rows(EXPIRE_DUE, limit=limit)
    changes.tell(logs.NOTABLE, "timedout", [row for row in found if row["kind"] != "timer"])
    return [row["parent_id"] for row in found if row["parent_id"]]


def note_unserved(limit: int = 500) -> set[str]:
    """Note on ready promises that no live node serves their group; return the groups."""
    return {row["group"] for row in rows(UNSERVED, lease=settings.LEASE, limit=limit)}


def take_unsent(
    groups: Sequence[str], addresses: Sequence[str], limit: int = 10, *, attended: Sequence[str] = ()
) -> list[ReadyRef]:
    """Return ready promises of ``groups`` that no worker came for: never sent, or their message is overdue.

    They count as sent now. ``addresses`` are the node's own: calls to others are theirs to send. Of the Celery tasks
    ``attended`` only those for this very node.
    """
    found = rows(
        TAKE_UNSENT,
        groups=list(groups),
        addresses=["", *addresses],
        attended=list(attended),
        limit=limit,
        every=settings.SWEEP_EVERY,
    )
    return ready_refs(found)


def due(groups: Sequence[str], *, deadlines: bool) -> tuple[bool, float | None]:
    """Return whether something is due, and in how many seconds the next thing will be, None if nothing will.

    Looks ahead for promises of ``groups`` and their messages, and for all deadlines and timers if ``deadlines``.
    """
    found = rows(DUE, groups=list(groups), deadlines=deadlines, every=settings.SWEEP_EVERY)[0]
    return found["is_due"], found["seconds"]


def not_sent(promise_ids: Iterable[str]) -> None:
    """Take back that messages were sent for the promises, so that the next sweep does it.

    If somebody holds one of them for long, all wait until their messages would be overdue.
    """
    try:
        rows(NOT_SENT, ids=list(promise_ids))
    except OperationalError as error:
        if not is_about_locks(error):
            raise
