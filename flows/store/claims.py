"""Claims: a node's right to run promises. A claim is asynchronous: a crash of PostgreSQL may undo it, harmlessly.

An undone claim leaves a promise ready again and its fencing token may be given out twice; that is why each write of an
attempt names node and session beside the token.
"""

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from flows.domain.promise import Kind, State
from flows.engine.decision import Checkpoint, Invocation
from flows.store.memory import Memory
from flows.store.sql import Row, rows

# Enums take ten times as long to find their members.
_KINDS = {kind.value: kind for kind in Kind}
_STATES = {state.value: state for state in State}

# Of the promise `p`: whether a suspended one may go on, for no more than `wake_at` of what it awaits are pending: 0, or
# for a race one less than there were.
MAY_GO_ON = """
    NOT EXISTS (SELECT FROM flows_promise c WHERE c.parent_id = p.id AND c.state = 'pending' AND c.continuation <> ''
        OFFSET p.wake_at)
"""

# (Texts of several lines, not arrays: psycopg takes longer to write an array than PostgreSQL to split a text.)
_IS_ADDRESSED = " (p.addressee = '' OR p.addressee = ANY(string_to_array(%(addresses)s, chr(10)))) "

# What a claim takes the oldest of. What is claimed stays in the index while it runs, and then until no transaction
# anywhere could see it there any more: a look from its beginning would read all of that, and a backup that runs for an
# hour slow down every claim.
_IS_READY = (
    """
    p.phase = 'ready' AND p.settled_at IS NULL AND p."group" = %(group)s AND p.ready_at >= to_timestamp(%(since)s)
    AND p.ready_at <= now() AND"""
    + _IS_ADDRESSED
)

# `suspended` may be claimed by a message too: its children's Celery link fires when the last of them has settled.
# (Each condition, here and in outcome_statement, fits one index only: a plan made for an empty table would keep the
# wrong one.)
_IS_CLAIMABLE = (
    """
    p.deadline_at > now() AND (
        (p.phase = 'ready' AND p.ready_at <= now()) OR (p.phase = 'suspended' AND"""
    + MAY_GO_ON
    + """)) AND"""
    + _IS_ADDRESSED
)

# Claims the rows of `due` and reads their checkpoints; a first attempt has none, and of some the first ones are known.
# `next` is another one of the group. What is for all rows stands in the first.
# A row that was claimed and given back while this statement waited for its lock is left alone: its children were read
# before that. (Row locks show the newest row; sub-selects show what was there when the statement began.)
# What is ready changes in no column that an index names, so no index is written; what was suspended gets its time here.
# Checkpoints come column by column: an array for each row of thousands takes half as long again to write.
_TAKE = """
, claimed AS (
    UPDATE flows_promise p
    SET phase = 'claimed', fence = p.fence + 1, node_id = %(node)s, session = %(session)s, claimed_at = now(),
        ready_at = COALESCE(p.ready_at, now()), sends = 0, note = ''
    FROM due WHERE p.id = due.id AND p.fence = due.seen_fence
    RETURNING p.id, p.root_id, p."group", p.addressee, p.function, p.version, p.args, p.retry, p.trace,
        CASE WHEN p.fence > 1 THEN extract(epoch FROM p.created_at)::float8 END AS created_at,
        extract(epoch FROM p.deadline_at)::float8 AS deadline_at, p.failures, p.fence, due.rank,
        extract(epoch FROM p.ready_at)::float8 AS ready_at
)
SELECT claimed.*, extract(epoch FROM clock_timestamp())::float8 AS clock,
    CASE WHEN claimed.fence > 1 THEN (
        SELECT json_build_array(json_agg(id), json_agg("position"), json_agg(kind), json_agg("group"),
            json_agg(function), json_agg(digest), json_agg(state), json_agg(value::text), json_agg(error),
            json_agg(failures), json_agg(continuation <> ''), json_agg(extract(epoch FROM settled_at)))
        FROM (SELECT * FROM flows_promise c WHERE c.parent_id = claimed.id AND c."position" >= COALESCE((
            SELECT known.count
            FROM json_to_recordset(%(known)s::json) AS known(id text, created_at float8, count int)
            WHERE known.id = claimed.id AND known.created_at = claimed.created_at), 0) ORDER BY "position") AS children
    ) END AS checkpoints,
    CASE WHEN row_number() OVER place = 1 THEN (SELECT json_build_array(function, id, addressee) FROM next) END AS next,
    CASE WHEN row_number() OVER place = 1 THEN set_config('synchronous_commit', 'off', true) END AS synchronous_commit
FROM claimed WINDOW place AS (ORDER BY claimed.rank) ORDER BY claimed.rank
"""

CLAIM_NAMED = (
    """
WITH due AS (
    SELECT p.id, 1 AS rank, (SELECT s.fence FROM flows_promise s WHERE s.id = p.id) AS seen_fence FROM flows_promise p
    WHERE p.id = %(id)s AND p."group" || '.' || p.function = %(task_name)s AND"""
    + _IS_CLAIMABLE
    + """FOR UPDATE SKIP LOCKED
), next AS (
    SELECT p.function, p.id, p.addressee FROM flows_promise p
    WHERE p.id <> %(id)s AND"""
    + _IS_READY
    + """ORDER BY p.ready_at LIMIT 1
)"""
    + _TAKE
)

# What has killed a process before is claimed alone: its batch mates would die with it.
# One more than wanted is looked at, so that the worker knows whether to wake another one, and for which promise.
CLAIM_READY = (
    """
WITH waiting AS (
    SELECT p.id, p.function, p.addressee, p.ready_at, p.losses > 0 AS is_risky,
        (SELECT s.fence FROM flows_promise s WHERE s.id = p.id) AS seen_fence
    FROM flows_promise p
    WHERE p.deadline_at > now() AND p.function = ANY(string_to_array(%(functions)s, chr(10))) AND"""
    + _IS_READY
    + """ORDER BY p.ready_at LIMIT %(limit)s + 1 FOR UPDATE SKIP LOCKED
), ranked AS (
    SELECT id, function, addressee, seen_fence, row_number() OVER oldest AS rank,
        count(*) FILTER (WHERE is_risky) OVER oldest AS risks
    FROM waiting WINDOW oldest AS (ORDER BY ready_at, id)
), due AS (
    SELECT id, rank, seen_fence FROM ranked WHERE rank = 1 OR (rank <= %(limit)s AND risks = 0)
), next AS (
    SELECT function, id, addressee FROM ranked WHERE id NOT IN (SELECT id FROM due) ORDER BY rank LIMIT 1
)"""
    + _TAKE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who claims: the node, and the database session through which it does.

    ``addresses`` are what calls to this very node may name: its process id and its Celery name.
    """

    node_id: int
    session: int
    addresses: tuple[str, ...] = ()

    def params(self) -> dict[str, Any]:
        """Return the parameters of CLAIM_NAMED and CLAIM_READY."""
        return {"node": self.node_id, "session": self.session, "addresses": "\n".join(self.addresses)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to run one attempt. ``fence`` is its fencing token, ``clock`` when the database gave it.

    ``trace`` is the W3C traceparent stored with the promise; once the attempt runs, that of its span, if it has one.
    """

    invocation: Invocation
    fence: int
    holder: Holder
    clock: datetime
    trace: str | None = None
    _received_s: float = field(default_factory=time.monotonic)

    def now(self) -> datetime:
        """Return the time of the database's clock: as it was, and what has passed here since."""
        return self.clock + timedelta(seconds=time.monotonic() - self._received_s)


class ReadyRef(NamedTuple):
    """A ready promise that a message can name. ``addressee`` is the only node that may run it, if there is one.

    ``was_suspended``: it goes on, and some worker may keep it open.
    """

    id: str
    group: str
    function: str
    addressee: str = ""
    was_suspended: bool = False

    @property
    def task_name(self) -> str:
        """The name of its Celery task."""
        return f"{self.group}.{self.function}"

    def is_for(self, task_names: Collection[str]) -> bool:
        """Return True if whoever takes up calls of these Celery tasks may take it."""
        return not self.addressee and self.task_name in task_names


def claim_named(
    named: ReadyRef, holder: Holder, memory: Memory | None = None, *, names_next: bool = True
) -> tuple[Claim | None, ReadyRef | None]:
    """Claim this promise, if it is ready, or suspended with nothing left to wait for.

    If it was claimed and ``names_next``, name another ready promise of its group, if there is one. ``memory`` is this
    thread's.
    """
    memory = memory or Memory()
    found = rows(
        CLAIM_NAMED,
        id=named.id,
        group=named.group,
        task_name=named.task_name,
        # The drain that follows looks back.
        since=memory.since(named.group, looks_back=False) if names_next else math.inf,
        **holder.params(),
        **memory.params(),
    )
    return (_claim(found[0], holder, memory), _next(found[0], named.group)) if found else (None, None)


def claim_ready(
    group: str, functions: Sequence[str], limit: int, holder: Holder, memory: Memory | None = None
) -> tuple[list[Claim], ReadyRef | None]:
    """Claim up to ``limit`` ready promises of ``group``, oldest first, and name the next one if there are more.

    ``memory`` is that of this thread, which always asks for the same ``functions`` of a group.
    """
    memory = memory or Memory()
    since, began_s = memory.since(group), time.monotonic()
    found = rows(
        CLAIM_READY,
        group=group,
        functions="\n".join(functions),
        limit=limit,
        since=since,
        **holder.params(),
        **memory.params(),
    )
    memory.looked(group, since, time.monotonic() - began_s, found[-1]["ready_at"] if found else None)
    return [_claim(row, holder, memory) for row in found], _next(found[0], group) if found else None


def _next(row: Row, group: str) -> ReadyRef | None:
    if not row["next"]:
        return None
    function, promise_id, addressee = row["next"]
    return ReadyRef(id=promise_id, group=group, function=function, addressee=addressee)


def _claim(row: Row, holder: Holder, memory: Memory) -> Claim:
    memory.told(row["clock"])
    created_at, read = row["created_at"], _checkpoints(row["checkpoints"])
    invocation = Invocation(
        id=row["id"],
        root_id=row["root_id"],
        group=row["group"],
        addressee=row["addressee"],
        function=row["function"],
        version=row["version"],
        args=row["args"],
        retry=row["retry"],
        deadline_at=datetime.fromtimestamp(row["deadline_at"], UTC),
        failures=row["failures"],
        attempt=row["fence"],
        checkpoints=memory.complete(row["id"], created_at, read) if created_at else (),
    )
    clock = datetime.fromtimestamp(row["clock"], UTC)
    return Claim(invocation=invocation, fence=row["fence"], holder=holder, clock=clock, trace=row["trace"])


def _checkpoints(columns: Sequence[Any] | None) -> list[Checkpoint]:
    """Return the records from their columns, which _TAKE has in the order of a record's fields."""
    if not columns or not columns[0]:  # a first attempt, or nothing that is not known
        return []
    ids, positions, kinds, groups, functions, digests, states, *others = columns
    kinds, states = map(_KINDS.__getitem__, kinds), map(_STATES.__getitem__, states)
    return list(map(Checkpoint, ids, positions, kinds, groups, functions, digests, states, *others))
