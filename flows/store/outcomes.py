"""Commits what attempts have done: outcomes, calls made, and the history; many attempts in one statement.

Durable: when the statement returns, the work is done for ever.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from typing import Any, LiteralString, NamedTuple

from django.db import OperationalError, transaction
from psycopg.errors import DeadlockDetected

from flows.conf import settings
from flows.domain.promise import LOCAL_KINDS, AttemptOutcome, Continuation, Kind, Phase, State
from flows.engine.decision import Call, Decision, Failed, Rejected, Resolved, SetAside, Suspended
from flows.store.cancel import cancel_tree
from flows.store.claims import Claim, ReadyRef
from flows.store.sql import Row, rows

# One statement, put together from what there is to write: PostgreSQL prepares to run each part, even for no rows.
#
# The LIMITs tell the planner, which takes any JSON for a hundred rows, that there are few: so it uses the primary key.
# What a row of JSON leaves out is null: most have only a few of the columns, and each costs time to write and to read.
#
# `held` is the fence: rows whose claim is gone are not in it, and nothing else is written for them. (What has a node
# is claimed.) A deadline that has passed counts as gone too, whether or not somebody has written it.
_OUTCOME = """
WITH outcome AS (
    SELECT *"""

# What several threads have done waits for nobody's locks: no longer than the commit of other work may take.
_GIVES_UP = ", set_config('lock_timeout', '50ms', true)"

_HELD = """ FROM (
        SELECT * FROM json_to_recordset(%(outcomes)s::json) AS o(id text, fence bigint, node int, session int,
            state text, phase text, value text, error json, note text, delay float8, failures int, version int,
            wake_at int, outcome text)
        LIMIT %(outcome_count)s
    ) AS few LIMIT %(outcome_count)s
), held AS (
    UPDATE flows_promise p
    SET state = o.state, phase = o.phase, value = o.value::json, error = o.error, note = COALESCE(o.note, ''),
        failures = COALESCE(o.failures, p.failures), version = COALESCE(p.version, o.version),
        wake_at = COALESCE(o.wake_at, 0),
        settled_at = CASE WHEN o.state <> 'pending' THEN clock_timestamp() END,
        losses = CASE WHEN o.outcome IS NULL THEN p.losses ELSE 0 END,
        ready_at = CASE WHEN o.phase = 'ready' THEN now() + COALESCE(o.delay, 0) * interval '1 second' END,
        sent_at = NULL,
        node_id = CASE WHEN o.phase = 'claimed' THEN p.node_id END,
        session = CASE WHEN o.phase = 'claimed' THEN p.session END
    FROM outcome o
    WHERE p.id = o.id AND p.fence = o.fence AND p.node_id = o.node AND p.session = o.session
        AND p.deadline_at > clock_timestamp()
    RETURNING p.id, p.root_id, p.parent_id, p.kind, p.state, p.continuation, p.deadline_at, p.claimed_at, o.fence,
        o.node, o.session, o.outcome, o.error
"""

_BORN = """
), call AS (
    SELECT c.*, held.root_id, held.deadline_at AS limit_at
    FROM (
        SELECT * FROM json_to_recordset(%(calls)s::json) AS c(id text, parent_id text, fence bigint, "position" int,
            kind text, "group" text, addressee text, function text, version int, args text, digest text, retry json,
            tags json, trace text, timeout float8, until timestamptz, state text, value text, error json, failures int,
            continuation text, is_known bool)
        LIMIT %(call_count)s
    ) AS c
    JOIN held ON held.id = c.parent_id AND held.fence = c.fence
), born AS (
    INSERT INTO flows_promise (id, root_id, parent_id, "position", kind, "group", addressee, function, version, args,
        digest, retry, tags, trace, state, value, error, failures, continuation, phase, ready_at, sent_at, deadline_at,
        settled_at, note, fence, losses, sends, wake_at)
    SELECT id, CASE kind WHEN 'detached' THEN id ELSE root_id END, parent_id, "position", kind, "group",
        COALESCE(addressee, ''), function, version, args::json, digest, retry, COALESCE(tags, '{}'), trace, state,
        value::json, error, COALESCE(failures, 0), continuation,
        CASE WHEN kind IN ('run', 'timer', 'external') THEN '' ELSE 'ready' END, now(), now(),
        CASE kind WHEN 'detached' THEN COALESCE(until, now() + timeout * interval '1 second') WHEN 'run' THEN limit_at
            ELSE LEAST(limit_at, COALESCE(until, now() + timeout * interval '1 second')) END,
        CASE WHEN state <> 'pending' THEN now() END, '', 0, 0, 0, 0
    FROM call WHERE is_known IS NOT TRUE
"""

# Written again, when an answer was lost: calls that are there already were written by this very statement before.
_AGAIN = """
    AND NOT EXISTS (SELECT FROM flows_promise e
        WHERE e.id = call.id AND e.parent_id = call.parent_id AND e.kind = call.kind AND e.digest = call.digest)
"""

# Local steps that had failed before, and are tried again.
_STEP = """
), step AS (
    UPDATE flows_promise p
    SET state = c.state, value = c.value::json, error = c.error, failures = c.failures,
        settled_at = CASE WHEN c.state <> 'pending' THEN now() END
    FROM call c WHERE c.is_known AND p.id = c.id AND p.settled_at IS NULL
"""

_AWAITED = """
), awaited AS (
    UPDATE flows_promise p SET continuation = a.continuation
    FROM json_to_recordset(%(awaited)s::json) AS a(id text, parent_id text, fence bigint,
        continuation text)
    JOIN held ON held.id = a.parent_id AND held.fence = a.fence
    WHERE p.id = a.id AND p.settled_at IS NULL
"""

# A parent that awaits this call alone may go on. If it is locked, or was suspended after this statement began, it is
# left to a join. (LATERAL: one by one, or PostgreSQL might read all that is suspended.)
_WOKEN = """
), woken AS (
    UPDATE flows_promise p SET phase = 'ready', ready_at = now(), sent_at = now(), sends = 0
    FROM (
        SELECT s.id FROM held CROSS JOIN LATERAL (
            SELECT id FROM flows_promise WHERE id = held.parent_id AND phase = 'suspended' FOR UPDATE SKIP LOCKED
        ) AS s
        WHERE held.state <> 'pending' AND held.continuation = 'link'
    ) AS free
    WHERE p.id = free.id
    RETURNING p.id
"""

# A token may have been given out twice, if a crash undid a claim (see claims): the attempt that still holds is the one.
_ATTEMPT = """
), attempt AS (
    INSERT INTO flows_attempt (promise_id, fence, node_id, session, outcome, error, started_at)
    SELECT id, fence, node, session, outcome, error, claimed_at FROM held WHERE outcome IS NOT NULL
    ON CONFLICT (promise_id, fence) DO UPDATE SET node_id = EXCLUDED.node_id, session = EXCLUDED.session,
        outcome = EXCLUDED.outcome, error = EXCLUDED.error, started_at = EXCLUDED.started_at,
        ended_at = EXCLUDED.ended_at
"""

_WRITTEN = """
)
SELECT held.id, held.continuation
FROM held
"""

_ENDED = """
)
SELECT held.id, held.continuation, parent.id AS parent_id, parent."group", parent.function,
    parent.addressee, EXISTS (SELECT FROM woken WHERE woken.id = parent.id) AS woke_parent,
    CASE WHEN held.state <> 'pending' AND held.kind IN ('root', 'detached')
        THEN pg_notify('flows_settled', held.id) END AS notified
FROM held LEFT JOIN flows_promise parent
    ON parent.id = held.parent_id AND held.state <> 'pending' AND held.continuation <> ''
"""


@cache
def _statement(
    *, gives_up: bool, has_calls: bool, again: bool, has_steps: bool, has_marks: bool, has_ends: bool
) -> LiteralString:
    parts: list[LiteralString] = [_OUTCOME, _GIVES_UP, _HELD] if gives_up else [_OUTCOME, _HELD]
    if has_calls:
        parts += [_BORN, _AGAIN] if again else [_BORN]
    if has_steps:
        parts.append(_STEP)
    if has_marks:
        parts.append(_AWAITED)
    parts += [_WOKEN, _ATTEMPT, _ENDED] if has_ends else [_ATTEMPT, _WRITTEN]
    # psycopg reads what is longer than 4,096 characters anew each time.
    return " ".join("".join(parts).split())


# The sweep that took the claim has recorded the attempt as lost; now its worker is known to have been there to the end.
# Of a promise that was purged meanwhile nothing is kept.
FENCED = """
INSERT INTO flows_attempt (promise_id, fence, node_id, session, outcome, started_at)
SELECT id, fence, node, session, 'fenced', now()
FROM json_to_recordset(%(claims)s::json) AS c(id text, fence bigint, node int, session int)
WHERE EXISTS (SELECT FROM flows_promise p WHERE p.id = c.id)
ON CONFLICT (promise_id, fence) DO UPDATE SET outcome = 'fenced', ended_at = now() WHERE flows_attempt.outcome = 'lost'
"""

_TRIES = 3
# As in claims: enums take ten times as long to find their members.
_CONTINUATIONS = {continuation.value: continuation for continuation in Continuation}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is to be committed for one claim.

    ``cancels`` are calls to be canceled. ``decision`` is None while the attempt goes on. ``awaited_before`` are calls
    that the attempt has written as awaited already. ``released`` gives a claim back that never began.
    """

    claim: Claim
    calls: tuple[Call, ...] = ()
    cancels: tuple[str, ...] = ()
    decision: Decision | None = None
    awaited_before: frozenset[str] = frozenset()
    released: bool = False

    @property
    def awaits(self) -> tuple[str, ...]:
        """The promises that the attempt was suspended on."""
        return self.decision.awaits if isinstance(self.decision, Suspended) else ()

    @cached_property
    def new_ids(self) -> frozenset[str]:
        """The promises that it makes."""
        return frozenset(call.id for call in self.calls if not call.is_known)

    @cached_property
    def _awaited(self) -> frozenset[str]:
        return frozenset(self.awaits)

    @cached_property
    def continuation(self) -> Continuation:
        """How the parent hangs on what it awaits: by a link on a single call, by a chord on calls made at once."""
        at_once = {*self.awaits, *(call.id for call in self.calls if call.kind in (Kind.RPC, Kind.RFI))}
        return Continuation.LINK if len(at_once) == 1 else Continuation.CHORD

    def continuation_of(self, call: Call) -> Continuation:
        """Return how the parent hangs on a call that it has made, as the call is inserted.

        Who makes an ``rpc`` awaits it; while the attempt goes on it may be one of several.
        """
        if call.id in self._awaited:
            return self.continuation
        return Continuation.CHORD if self.decision is None and call.kind is Kind.RPC else Continuation.NONE

    @cached_property
    def marks(self) -> dict[str, Continuation]:
        """What changes for promises that stand in the table already: those that are awaited now, or no longer."""
        if not isinstance(self.decision, Suspended):
            return {}
        marked = {c.id for c in self.claim.invocation.checkpoints if c.is_awaited and c.state is State.PENDING}
        marked |= self.awaited_before
        awaited = {id: self.continuation for id in self.awaits if id not in self.new_ids and id not in marked}
        return awaited | dict.fromkeys(marked.difference(self.awaits), Continuation.NONE)

    @property
    def stands_alone(self) -> bool:
        """True if it touches promises of earlier transactions.

        A statement may update a row once only, and another outcome may be that very row's.
        """
        return bool(self.marks or self.cancels)


class Committed(NamedTuple):
    """One outcome as written, and if its promise has settled the parent that hangs on it, if any.

    ``woke_parent``: the parent is ready again. ``is_aside``: it could not be written, and its promise was set aside
    instead.
    """

    id: str
    continuation: Continuation
    parent: ReadyRef | None
    woke_parent: bool = False
    is_aside: bool = False


def commit(outcomes: Sequence[Outcome], *, again: bool = False, gives_up: bool = False) -> dict[str, Committed]:
    """Write ``outcomes``, each if its claim still holds; return those that were written, by promise id.

    The others are recorded as fenced. An outcome that ``stands_alone`` shares its statement with no other. ``again``
    tells that they may have been written before, without an answer. With ``gives_up``, and if none stands alone, all or
    nothing is written: ``OperationalError`` (see ``sql.is_about_locks``) if others hold locks for too long.
    """
    together = [outcome for outcome in outcomes if not outcome.stands_alone]
    written = _commit(together, again=again, gives_up=gives_up) if together else {}
    for outcome in outcomes:
        if outcome.cancels:
            written |= _commit_and_cancel(outcome, again=again)
        elif outcome.marks:
            written |= _commit([outcome], again=again)
    refused = [outcome.claim for outcome in outcomes if outcome.claim.invocation.id not in written]
    if refused:
        record_fenced(refused)
    return written


def commit_calls(claim: Claim, calls: Sequence[Call]) -> bool:
    """Write calls of an attempt that goes on, in the caller's transaction; return False if its claim is gone."""
    return bool(_commit([Outcome(claim=claim, calls=tuple(calls))]))


def record_fenced(claims: Iterable[Claim]) -> None:
    """Record that these attempts went on after they had lost their claim."""
    rows(FENCED, claims=json.dumps([_claim_row(claim) for claim in claims]))


def _commit(batch: Sequence[Outcome], *, again: bool = False, gives_up: bool = False) -> dict[str, Committed]:
    calls = [row for outcome in batch for row in _call_rows(outcome)]
    awaited = [row for outcome in batch for row in _awaited_rows(outcome)]
    statement = _statement(
        gives_up=gives_up,
        has_calls=bool(calls),
        again=again,
        has_steps=any(call.is_known for outcome in batch for call in outcome.calls),
        has_marks=bool(awaited),
        has_ends=any(isinstance(outcome.decision, Resolved | Rejected) for outcome in batch),
    )
    params: dict[str, Any] = {
        "outcomes": json.dumps([_outcome_row(outcome) for outcome in batch]),
        "outcome_count": len(batch),
    }
    if calls:
        params |= {"calls": json.dumps(calls), "call_count": len(calls)}
    if awaited:
        params["awaited"] = json.dumps(awaited)
    return {row["id"]: _committed(row) for row in rows(statement, **params)}


def _commit_and_cancel(outcome: Outcome, *, again: bool) -> dict[str, Committed]:
    for tries_left in range(_TRIES, 0, -1):
        try:
            with transaction.atomic(using=settings.DATABASE):
                written = _commit([outcome], again=again)
                for promise_id in outcome.cancels if written else ():
                    cancel_tree(promise_id)
        except OperationalError as error:
            # Losers that settle at this moment lock the same rows in another order.
            if tries_left == 1 or not isinstance(error.__cause__, DeadlockDetected):
                raise
        else:
            return written
    raise AssertionError("unreachable: the last try returns or raises")


def _claim_row(claim: Claim) -> Row:
    holder = claim.holder
    return {"id": claim.invocation.id, "fence": claim.fence, "node": holder.node_id, "session": holder.session}


def _outcome_row(outcome: Outcome) -> Row:
    return {**_claim_row(outcome.claim), "version": outcome.claim.invocation.version, **_changes(outcome)}


def _changes(outcome: Outcome) -> Row:
    match outcome.decision:
        case None:
            return {"state": State.PENDING, "phase": Phase.READY if outcome.released else Phase.CLAIMED}
        case Resolved(value=value):
            return {"state": State.RESOLVED, "phase": Phase.NONE, "value": value, "outcome": AttemptOutcome.RESOLVED}
        case Rejected(error=error):
            return {"state": State.REJECTED, "phase": Phase.NONE, "error": error, "outcome": AttemptOutcome.REJECTED}
        case Failed(error=error, delay=delay, failures=failures):
            return {
                "state": State.PENDING,
                "phase": Phase.READY,
                "error": error,
                "note": f"{error['type']}: {error['message']}",
                "delay": delay.total_seconds(),
                "failures": failures,
                "outcome": AttemptOutcome.FAILED,
            }
        case SetAside(note=note):
            return {"state": State.PENDING, "phase": Phase.ASIDE, "note": note, "outcome": AttemptOutcome.ASIDE}
        case Suspended(awaits=awaits, first=first):
            return {
                "state": State.PENDING,
                "phase": Phase.SUSPENDED,
                "wake_at": len(awaits) - 1 if first else 0,
                "outcome": AttemptOutcome.SUSPENDED,
            }


def _call_rows(outcome: Outcome) -> Iterable[Row]:
    claim = outcome.claim
    parent_id, fence, trace = claim.invocation.id, claim.fence, claim.trace
    for call in outcome.calls:
        row = {
            "id": call.id,
            "parent_id": parent_id,
            "fence": fence,
            "position": call.position,
            "kind": call.kind,
            "group": call.group,
            "function": call.function,
            "version": call.version,
            "args": call.args,
            "digest": call.digest,
            "state": call.state,
            "continuation": outcome.continuation_of(call),
            **_deadline(call),
        }
        given = {"addressee": call.addressee, "retry": call.retry, "tags": call.tags}
        if call.kind in LOCAL_KINDS:
            row |= {"value": call.value, "error": call.error, "failures": call.failures, "is_known": call.is_known}
        else:  # what has no attempts has no spans, either
            given["trace"] = trace
        yield row | {name: value for name, value in given.items() if value}


def _awaited_rows(outcome: Outcome) -> Iterable[Row]:
    parent_id = outcome.claim.invocation.id
    for promise_id, continuation in outcome.marks.items():
        yield {"id": promise_id, "parent_id": parent_id, "fence": outcome.claim.fence, "continuation": continuation}


def _deadline(call: Call) -> Row:
    if isinstance(call.timeout, datetime):
        return {"until": call.timeout.isoformat()}
    timeout = call.timeout if call.timeout is not None else settings.TIMEOUT
    return {"timeout": timeout.total_seconds()}


def _committed(row: Row) -> Committed:
    parent = None
    if row.get("parent_id"):
        parent = ReadyRef(
            id=row["parent_id"],
            group=row["group"],
            function=row["function"],
            addressee=row["addressee"],
            was_suspended=True,
        )
    return Committed(
        id=row["id"],
        continuation=_CONTINUATIONS[row["continuation"]],
        parent=parent,
        woke_parent=bool(row.get("woke_parent")),
    )
