"""Tells the log what a worker's attempts have come to. Costs one check per batch where nobody listens."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flows import logs
from flows.engine.decision import Failed, Rejected, Resolved, SetAside, Suspended
from flows.store.claims import Claim
from flows.store.outcomes import Committed, Outcome
from flows.worker import process


def claimed(claims: Iterable[Claim]) -> None:
    """Tell of attempts that begin."""
    if logs.changes.isEnabledFor(logs.ROUTINE):
        for claim in claims:
            logs.tell(logs.ROUTINE, "claimed", _call(claim))


def committed(batch: Sequence[Outcome], written: Mapping[str, Committed]) -> None:
    """Tell of attempts that ended, as they were written, or refused."""
    wanted = logs.changes.getEffectiveLevel()
    for outcome in batch:
        if outcome.decision is None:
            continue
        ended = written.get(outcome.claim.invocation.id)
        if ended is None:
            fenced(outcome.claim)
        elif ended.is_aside:
            logs.tell(logs.STUCK, "aside", _call(outcome.claim), because="its outcome cannot be written")
        elif (level := _level(outcome)) >= wanted:
            _tell_ended(level, outcome)


def fenced(claim: Claim) -> None:
    """Tell of an attempt whose outcome was refused: it had lost its claim."""
    logs.tell(logs.TROUBLE, "fenced", _call(claim))


def _level(outcome: Outcome) -> int:
    match outcome.decision:
        case Suspended():
            return logs.ROUTINE
        case Resolved():
            # A flow that ends is worth a line in production; calls below it that do as they should are not.
            invocation = outcome.claim.invocation
            return logs.NOTABLE if invocation.id == invocation.root_id else logs.ROUTINE
        case SetAside():
            return logs.STUCK
    return logs.NOTABLE


def _tell_ended(level: int, outcome: Outcome) -> None:
    call = _call(outcome.claim)
    match outcome.decision:
        case Resolved():
            logs.tell(level, "resolved", call)
        case Rejected(error=error):
            logs.tell(level, "rejected", call, error_type=error["type"])
        case Failed(error=error, delay=delay, failures=failures):
            retry_in_s = round(delay.total_seconds(), 3)
            logs.tell(level, "failed", call, error_type=error["type"], failures=failures, retry_in_s=retry_in_s)
        case Suspended(awaits=awaits):
            logs.tell(level, "suspended", call, awaits=len(awaits))
        case SetAside(note=note):
            # The note compares calls by their names and digests: no payload.
            logs.tell(level, "aside", call, because=note)


def _call(claim: Claim) -> dict[str, Any]:
    invocation = claim.invocation
    return {
        "id": invocation.id,
        "root_id": invocation.root_id,
        "group": invocation.group,
        "function": invocation.function,
        "attempt": claim.fence,
        "node": process.node_name(),
    }
