"""Commits what attempts have done: outcomes, calls made, and the history; many attempts in one statement.

Durable: when the statement returns, the work is done for ever.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from django.db import OperationalError, transaction
from psycopg.errors import DeadlockDetected

from flows.conf import settings
from flows.domain.promise import LOCAL_KINDS, AttemptOutcome, Continuation, Kind, Phase, State
from flows.engine.decision import Call, Decision, Failed, Rejected, Resolved, SetAside, Suspended
from flows.store.cancel import cancel_tree
from flows.store.claims import Claim, ReadyRef
from flows.store.outcome_statement import outcome_statement
from flows.store.sql import Row, rows

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
    statement = outcome_statement(
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
