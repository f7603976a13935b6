"""Commits what attempts have done: outcomes, calls made, and the history; many attempts in one statement.

Durable: when the statement returns, the work is done for ever.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flows.conf import settings
from flows.domain.promise import AttemptOutcome, Continuation, Kind, Phase, State
from flows.engine.decision import Call, Decision, Failed, Rejected, Resolved, SetAside, Suspended
from flows.store.claims import Claim, ReadyRef
from flows.store.sql import Row, rows

# Calls that are there already were written by this very statement before, when its answer was lost.
#
# A token may have been given out twice, if a crash undid a claim (see claims): the attempt that still holds is the one.
#
# `held` is the fence: rows whose claim is gone are not in it, and nothing else is written for them. A deadline that has
# passed counts as gone too, whether or not somebody has written it.
COMMIT = """
WITH outcome AS (
    SELECT * FROM json_to_recordset(%(outcomes)s::json) AS o(id text, fence bigint, node int, session int, state text,
        phase text, value text, error json, note text, delay float8, failures int, outcome text)
), held AS (
    UPDATE flows_promise p
    SET state = o.state, phase = o.phase, value = o.value::json, error = o.error, note = o.note, failures = o.failures,
        settled_at = CASE WHEN o.state <> 'pending' THEN clock_timestamp() END,
        losses = CASE WHEN o.outcome IS NULL THEN p.losses ELSE 0 END,
        ready_at = CASE WHEN o.phase = 'ready' THEN now() + o.delay * interval '1 second' END, sent_at = NULL,
        node_id = CASE WHEN o.phase = 'claimed' THEN p.node_id END,
        session = CASE WHEN o.phase = 'claimed' THEN p.session END
    FROM outcome o
    WHERE p.id = o.id AND p.phase = 'claimed' AND p.fence = o.fence AND p.node_id = o.node AND p.session = o.session
        AND p.state = 'pending' AND p.deadline_at > clock_timestamp()
    RETURNING p.id, p.root_id, p.parent_id, p.kind, p.state, p.continuation, p.deadline_at, p.claimed_at, o.fence,
        o.node, o.session, o.outcome, o.error
), call AS (
    SELECT c.*, held.root_id, held.deadline_at AS limit_at FROM json_to_recordset(%(calls)s::json) AS c(id text,
        parent_id text, fence bigint, "position" int, kind text, "group" text, function text, args text, digest text,
        timeout float8, state text, value text, error json, failures int, continuation text, is_known bool)
    JOIN held ON held.id = c.parent_id AND held.fence = c.fence
), born AS (
    INSERT INTO flows_promise (id, root_id, parent_id, "position", kind, "group", function, args, digest, state, value,
        error, failures, continuation, phase, ready_at, sent_at, deadline_at, settled_at, note, fence, losses, sends)
    SELECT id, CASE kind WHEN 'detached' THEN id ELSE root_id END, parent_id, "position", kind, "group", function,
        args::json, digest, state, value::json, error, failures, continuation,
        CASE WHEN kind IN ('run', 'timer') THEN '' ELSE 'ready' END, now(), now(),
        CASE kind WHEN 'detached' THEN now() + timeout * interval '1 second' WHEN 'run' THEN limit_at
            ELSE LEAST(limit_at, now() + timeout * interval '1 second') END,
        CASE WHEN state <> 'pending' THEN now() END, '', 0, 0, 0
    FROM call WHERE NOT is_known AND NOT EXISTS (
        SELECT FROM flows_promise e
        WHERE e.id = call.id AND e.parent_id = call.parent_id AND e.kind = call.kind AND e.digest = call.digest)
), step AS (
    UPDATE flows_promise p
    SET state = c.state, value = c.value::json, error = c.error, failures = c.failures,
        settled_at = CASE WHEN c.state <> 'pending' THEN now() END
    FROM call c WHERE c.is_known AND p.id = c.id AND p.state = 'pending'
), awaited AS (
    UPDATE flows_promise p SET continuation = a.continuation
    FROM json_to_recordset(%(awaited)s::json) AS a(id text, parent_id text, fence bigint,
        continuation text)
    JOIN held ON held.id = a.parent_id AND held.fence = a.fence
    WHERE p.id = a.id AND p.state = 'pending'
), attempt AS (
    INSERT INTO flows_attempt (promise_id, fence, node_id, session, outcome, error, started_at)
    SELECT id, fence, node, session, outcome, error, claimed_at FROM held WHERE outcome IS NOT NULL
    ON CONFLICT (promise_id, fence) DO UPDATE SET node_id = EXCLUDED.node_id, session = EXCLUDED.session,
        outcome = EXCLUDED.outcome, error = EXCLUDED.error, started_at = EXCLUDED.started_at
)
SELECT held.id, held.state, held.continuation, parent.id AS parent_id, parent."group", parent.function,
    CASE WHEN held.state <> 'pending' AND held.kind IN ('root', 'detached')
        THEN pg_notify('flows_settled', held.id) END AS notified
FROM held LEFT JOIN flows_promise parent ON parent.id = held.parent_id AND held.continuation <> ''
"""

# The sweep that took the claim has recorded the attempt as lost; now its worker is known to have been there to the end.
FENCED = """
INSERT INTO flows_attempt (promise_id, fence, node_id, session, outcome, started_at)
SELECT id, fence, node, session, 'fenced', now()
FROM json_to_recordset(%(claims)s::json) AS c(id text, fence bigint, node int, session int)
ON CONFLICT (promise_id, fence) DO UPDATE SET outcome = 'fenced', ended_at = now() WHERE flows_attempt.outcome = 'lost'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is to be committed for one claim.

    ``decision`` is None while the attempt goes on. ``released`` gives a claim back that never began.
    """

    claim: Claim
    calls: tuple[Call, ...] = ()
    decision: Decision | None = None
    released: bool = False

    @property
    def awaits(self) -> tuple[str, ...]:
        """The promises that the attempt was suspended on."""
        return self.decision.awaits if isinstance(self.decision, Suspended) else ()

    @property
    def continuation(self) -> Continuation:
        """How the parent hangs on what it awaits: by a link on a single call, by a chord on calls made at once."""
        at_once = {*self.awaits, *(call.id for call in self.calls if call.kind in (Kind.RPC, Kind.RFI))}
        return Continuation.LINK if len(at_once) == 1 else Continuation.CHORD

    @property
    def awaited_earlier(self) -> tuple[str, ...]:
        """The awaited promises that stand in the table already and are not marked as awaited."""
        new = {call.id for call in self.calls if not call.is_known}
        marked = {c.id for c in self.claim.invocation.checkpoints if c.is_awaited}
        return tuple(id for id in self.awaits if id not in new and id not in marked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """One outcome as written: its new state, and the parent that hangs on it, if any."""

    id: str
    state: State
    continuation: Continuation
    parent: ReadyRef | None


def commit(outcomes: Sequence[Outcome]) -> dict[str, Committed]:
    """Write ``outcomes``, each if its claim still holds; return those that were written, by promise id.

    The others are recorded as fenced. An outcome that marks promises of earlier transactions as awaited shares its
    statement with no other: a statement may update a row once only, and the other may be that very row's.
    """
    alone = [[outcome] for outcome in outcomes if outcome.awaited_earlier]
    together = [outcome for outcome in outcomes if not outcome.awaited_earlier]
    written: dict[str, Committed] = {}
    for batch in [*([together] if together else []), *alone]:
        written |= _commit(batch)
    refused = [outcome.claim for outcome in outcomes if outcome.claim.invocation.id not in written]
    if refused:
        rows(FENCED, claims=json.dumps([_claim_row(claim) for claim in refused]))
    return written


def _commit(batch: Sequence[Outcome]) -> dict[str, Committed]:
    found = rows(
        COMMIT,
        outcomes=json.dumps([_outcome_row(outcome) for outcome in batch]),
        calls=json.dumps([row for outcome in batch for row in _call_rows(outcome)]),
        awaited=json.dumps([row for outcome in batch for row in _awaited_rows(outcome)]),
    )
    return {row["id"]: _committed(row) for row in found}


def _claim_row(claim: Claim) -> Row:
    holder = claim.holder
    return {"id": claim.invocation.id, "fence": claim.fence, "node": holder.node_id, "session": holder.session}


def _outcome_row(outcome: Outcome) -> Row:
    blank = {
        "state": State.PENDING,
        "phase": Phase.CLAIMED,
        "note": "",
        "delay": 0,
        "failures": outcome.claim.invocation.failures,
    }
    return {**_claim_row(outcome.claim), **blank, **_changes(outcome)}


def _changes(outcome: Outcome) -> Row:
    match outcome.decision:
        case None:
            return {"phase": Phase.READY} if outcome.released else {}
        case Resolved(value=value):
            return {"state": State.RESOLVED, "phase": Phase.NONE, "value": value, "outcome": AttemptOutcome.RESOLVED}
        case Rejected(error=error):
            return {"state": State.REJECTED, "phase": Phase.NONE, "error": error, "outcome": AttemptOutcome.REJECTED}
        case Failed(error=error, delay=delay, failures=failures):
            return {
                "phase": Phase.READY,
                "error": error,
                "note": f"{error['type']}: {error['message']}",
                "delay": delay.total_seconds(),
                "failures": failures,
                "outcome": AttemptOutcome.FAILED,
            }
        case SetAside(note=note):
            return {"phase": Phase.ASIDE, "note": note, "outcome": AttemptOutcome.ASIDE}
        case Suspended():
            return {"phase": Phase.SUSPENDED, "outcome": AttemptOutcome.SUSPENDED}


def _call_rows(outcome: Outcome) -> Iterable[Row]:
    awaits = set(outcome.awaits)
    for call in outcome.calls:
        yield {
            "id": call.id,
            "parent_id": outcome.claim.invocation.id,
            "fence": outcome.claim.fence,
            "position": call.position,
            "kind": call.kind,
            "group": call.group,
            "function": call.function,
            "args": call.args,
            "digest": call.digest,
            "timeout": _timeout(call).total_seconds(),
            "state": call.state,
            "value": call.value,
            "error": call.error,
            "failures": call.failures,
            "continuation": outcome.continuation if call.id in awaits else Continuation.NONE,
            "is_known": call.is_known,
        }


def _awaited_rows(outcome: Outcome) -> Iterable[Row]:
    parent_id = outcome.claim.invocation.id
    for promise_id in outcome.awaited_earlier:
        yield {
            "id": promise_id,
            "parent_id": parent_id,
            "fence": outcome.claim.fence,
            "continuation": outcome.continuation,
        }


def _timeout(call: Call) -> timedelta:
    return call.timeout if call.timeout is not None else settings.TIMEOUT


def _committed(row: Row) -> Committed:
    parent = row["parent_id"]
    fields: dict[str, Any] = {"id": parent, "group": row["group"], "function": row["function"]}
    return Committed(
        id=row["id"],
        state=State(row["state"]),
        continuation=Continuation(row["continuation"]),
        parent=ReadyRef(**fields) if parent else None,
    )
