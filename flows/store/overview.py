"""The numbers that operators watch, read where the truth is. Each statement costs what is in flight, not what is kept.

Pending promises are counted by the index of deadlines, what settled lately by one that holds settled flows alone, up to
``MAX_COUNTED`` of each state. Nothing counts all that ever settled.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flows.conf import settings
from flows.domain.promise import AttemptOutcome, State
from flows.store.sql import Row, repeatable_rows

WINDOW = timedelta(hours=1)
MAX_COUNTED = 100_000

# The oldest is looked up at the end of an index, for each group that has any.
GROUPS = """
WITH counted AS (
    SELECT "group",
        count(*) FILTER (WHERE phase = 'ready' AND ready_at <= now()) AS ready,
        count(*) FILTER (WHERE phase = 'ready' AND ready_at > now()) AS delayed,
        count(*) FILTER (WHERE phase = 'claimed') AS claimed,
        count(*) FILTER (WHERE phase = 'suspended') AS suspended,
        count(*) FILTER (WHERE phase = 'aside') AS aside,
        count(*) FILTER (WHERE kind = 'external') AS external,
        count(*) FILTER (WHERE kind = 'timer') AS timers
    FROM flows_promise WHERE state = 'pending' AND deadline_at > now() GROUP BY "group"
), served AS (
    SELECT served AS "group", count(*) AS nodes FROM flows_node n, json_array_elements_text(n.groups) served
    WHERE n.lease_until > now() GROUP BY served
)
SELECT COALESCE(counted."group", served."group") AS "group", COALESCE(nodes, 0) AS nodes, ready, delayed, claimed,
    suspended, aside, external, timers, oldest.id AS oldest_id, oldest.ready_at AS oldest_at
FROM counted FULL JOIN served ON served."group" = counted."group" LEFT JOIN LATERAL (
    SELECT id, ready_at FROM flows_promise p
    WHERE p.phase = 'ready' AND p.settled_at IS NULL AND p."group" = counted."group" AND p.ready_at <= now()
        AND p.deadline_at > now()
    ORDER BY ready_at LIMIT 1
) AS oldest ON counted.ready > 0
ORDER BY 1
"""

# The condition of the index is spelled out: from `ANY` alone the planner does not see that it holds.
SETTLED = """
SELECT of.state, (SELECT count(*) FROM (
    SELECT FROM flows_promise p
    WHERE p.kind IN ('root', 'detached') AND p.state <> 'pending' AND p.state = of.state
        AND p.settled_at > now() - %(window)s
    LIMIT %(limit)s) AS few) AS count
FROM unnest(%(states)s::text[]) AS of(state)
"""

ENDED = """
SELECT of.outcome, (SELECT count(*) FROM (
    SELECT FROM flows_attempt a
    WHERE a.outcome IN ('lost', 'fenced') AND a.outcome = of.outcome AND a.ended_at > now() - %(window)s
    LIMIT %(limit)s) AS few) AS count
FROM unnest(%(outcomes)s::text[]) AS of(outcome)
"""

NODES = """
SELECT now() AS now, (SELECT count(*) FROM flows_node WHERE lease_until > now()) AS nodes,
    (SELECT max(swept_at) FROM flows_node) AS swept_at
"""

_SETTLED_STATES = tuple(state for state in State if state is not State.PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLoad:
    """What is pending in one group, by what it waits for, and how many live nodes serve the group.

    ``ready`` may be claimed now: the depth of the queue; ``oldest_id`` has been ready for longest, since ``oldest_at``.
    ``delayed`` is ready later: its attempt failed. ``aside`` waits for other code, ``external`` for somebody outside.
    """

    group: str
    nodes: int
    ready: int = 0
    delayed: int = 0
    claimed: int = 0
    suspended: int = 0
    aside: int = 0
    external: int = 0
    timers: int = 0
    oldest_id: str | None = None
    oldest_at: datetime | None = None

    @property
    def is_unserved(self) -> bool:
        """True if something is to be run and nobody is there to do so."""
        return not self.nodes and bool(self.ready + self.delayed + self.claimed + self.suspended)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All numbers at one time, ``now``, of the database's clock.

    ``groups`` are those of the settings, those that live nodes serve, and those that have anything pending. ``settled``
    are roots and detached calls that settled within ``WINDOW``, by state, ``lost`` and ``fenced`` attempts that ended
    so in it; each is counted up to ``MAX_COUNTED``.
    """

    now: datetime
    groups: tuple[GroupLoad, ...]
    nodes: int
    swept_at: datetime | None
    settled: dict[State, int]
    lost: int
    fenced: int

    @property
    def failed(self) -> int:
        """How many flows ended within ``WINDOW`` without a value."""
        return sum(count for state, count in self.settled.items() if state is not State.RESOLVED)

    def total(self, count: str) -> int:
        """Return the sum of one count, such as ``ready``, over all groups."""
        return sum(getattr(group, count) for group in self.groups)


def read_overview() -> Overview:
    """Return the numbers as they are now."""
    ended = repeatable_rows(
        ENDED, outcomes=[AttemptOutcome.LOST, AttemptOutcome.FENCED], window=WINDOW, limit=MAX_COUNTED
    )
    attempts = {row["outcome"]: row["count"] for row in ended}
    settled = repeatable_rows(SETTLED, states=list(_SETTLED_STATES), window=WINDOW, limit=MAX_COUNTED)
    return Overview(
        **repeatable_rows(NODES)[0],
        groups=tuple(_groups(repeatable_rows(GROUPS))),
        settled={State(row["state"]): row["count"] for row in settled},
        lost=attempts[AttemptOutcome.LOST],
        fenced=attempts[AttemptOutcome.FENCED],
    )


def _groups(found: list[Row]) -> list[GroupLoad]:
    loads = [GroupLoad(**_known(row)) for row in found]
    idle = set(settings.GROUPS).difference(load.group for load in loads)
    return sorted([*loads, *(GroupLoad(group=group, nodes=0) for group in idle)], key=lambda load: load.group)


def _known(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
