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
    if not logs.changes.isEnabledFor(logs.STUCK):
        return
    is_enabled = logs.changes.isEnabledFor(logs.NOTABLE)
    is_routine = logs.changes.isEnabledFor(logs.ROUTINE)
    for outcome in batch:
        if outcome.decision is None:
            continue
        ended = written.get(outcome.claim.invocation.id)
        if ended is None:
            fenced(outcome.claim)
        elif ended.is_aside:
            logs.tell(logs.STUCK, "aside", _call(outcome.claim), because="its outcome cannot be written")
        elif isinstance(outcome.decision, SetAside):
            # The note compares calls by their names and digests: no payload.
            logs.tell(logs.STUCK, "aside", _call(outcome.claim), because=outcome.decision.note)
        elif is_routine or (is_enabled and not isinstance(outcome.decision, Suspended)):
            _tell_ended(outcome)


def fenced(claim: Claim) -> None:
    """Tell of an attempt whose outcome was refused: it had lost its claim."""
    logs.tell(logs.TROUBLE, "fenced", _call(claim))


def _tell_ended(outcome: Outcome) -> None:
    call = _call(outcome.claim)
    # A flow that ends is worth a line in production; the calls below it, as long as they do as they should, are not.
    level = logs.NOTABLE if call["id"] == call["root_id"] else logs.ROUTINE
    match outcome.decision:
        case Resolved():
            logs.tell(level, "resolved", call)
        case Rejected(error=error):
            logs.tell(logs.NOTABLE, "rejected", call, error_type=error["type"])
        case Failed(error=error, delay=delay, failures=failures):
            retry_in_s = round(delay.total_seconds(), 3)
            logs.tell(logs.NOTABLE, "failed", call, error_type=error["type"], failures=failures, retry_in_s=retry_in_s)
        case Suspended(awaits=awaits):
            logs.tell(logs.ROUTINE, "suspended", call, awaits=len(awaits))


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
