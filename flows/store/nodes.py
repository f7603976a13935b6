"""Nodes, alive while their lease is renewed, and the locks of the sessions that claim."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flows.conf import settings
from flows.store.sql import repeatable_rows, rows

# First key of the session locks: "f" in the highest byte keeps clear of the small numbers that applications use.
LOCK_SPACE = 0x66000000

REGISTER = """
INSERT INTO flows_node (name, groups, hostname, pid, lease_until)
VALUES (%(name)s, %(groups)s::json, %(hostname)s, %(pid)s, now() + %(lease)s) RETURNING id
"""

# Inserts again what somebody deleted: the node's processes go on under the id that they were given.
BEAT = """
INSERT INTO flows_node (id, name, groups, hostname, pid, lease_until)
VALUES (%(id)s, %(name)s, %(groups)s::json, %(hostname)s, %(pid)s, now() + %(lease)s)
ON CONFLICT (id) DO UPDATE SET lease_until = EXCLUDED.lease_until, stopped_at = NULL
"""

NAME_OF = """
SELECT name FROM flows_node n
WHERE lease_until > now() AND %(address)s IN (name, pid::text)
    AND EXISTS (SELECT FROM json_array_elements_text(groups) served WHERE served = %(group)s)
ORDER BY id DESC LIMIT 1
"""

CLAIM_COUNTS = """
SELECT node_id, count(*) AS count FROM flows_promise
WHERE phase = 'claimed' AND settled_at IS NULL AND ready_at IS NOT NULL AND node_id = ANY(%(ids)s) GROUP BY node_id
"""

STOP = """UPDATE flows_node SET stopped_at = now(), lease_until = now() WHERE id = %(id)s"""

# Keeps sweeps of many nodes apart. Two may still sweep at once; that is harmless. Who recovers nothing yet leaves the
# turn to somebody who does: workers that start again and again would otherwise put recovery off.
TAKE_TURN = """
UPDATE flows_node SET swept_at = CASE WHEN %(recovers)s THEN now() ELSE swept_at END WHERE id = %(id)s AND NOT EXISTS (
    SELECT FROM flows_node WHERE swept_at > now() - %(every)s * 0.8)
RETURNING id
"""

# Shared, so that a new connection can take the lock before PostgreSQL knows that the old one is gone.
HOLD = """SELECT pg_try_advisory_lock_shared(%(space)s, %(session)s) AS held"""


RELEASE = """SELECT pg_advisory_unlock_shared(%(space)s, %(session)s)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """What a node tells of itself. ``pid`` is that of its main process."""

    name: str
    groups: tuple[str, ...]
    hostname: str
    pid: int

    def params(self) -> dict[str, Any]:
        """Return the parameters of REGISTER and BEAT."""
        groups = json.dumps(self.groups)
        return {
            "name": self.name,
            "groups": groups,
            "hostname": self.hostname,
            "pid": self.pid,
            "lease": settings.LEASE,
        }


def register(info: NodeInfo) -> int:
    """Register a worker process; return the node's id."""
    return int(rows(REGISTER, **info.params())[0]["id"])


def beat(node_id: int, info: NodeInfo) -> None:
    """Renew the node's lease."""
    rows(BEAT, id=node_id, **info.params())


def name_of(group: str, address: str) -> str | None:
    """Return the Celery name of the live node of ``group`` with this process id or name."""
    found = repeatable_rows(NAME_OF, group=group, address=address)
    return str(found[0]["name"]) if found else None


def claim_counts(node_ids: Iterable[int]) -> dict[int, int]:
    """Return how many promises each of the nodes has claimed; those that have none are left out."""
    return {row["node_id"]: row["count"] for row in repeatable_rows(CLAIM_COUNTS, ids=list(node_ids))}


def stop(node_id: int) -> None:
    """End the node's lease: it runs nothing any more."""
    repeatable_rows(STOP, id=node_id)


def release_session_lock(node_id: int, session: int) -> None:
    """Let go of the lock: the sweep takes what the session has claimed."""
    rows(RELEASE, space=LOCK_SPACE + node_id, session=session)


def take_sweep_turn(node_id: int, *, recovers: bool = True) -> bool:
    """Return True if it is this node's turn to sweep for all; others have one too if this one ``recovers`` nothing."""
    return bool(rows(TAKE_TURN, id=node_id, recovers=recovers, every=settings.SWEEP_EVERY))


def hold_session_lock(node_id: int, session: int) -> bool:
    """Take the lock that shows ``session`` alive for as long as this connection lives."""
    return bool(rows(HOLD, space=LOCK_SPACE + node_id, session=session)[0]["held"])
