"""Which steps were executed more than once, and why: a repetition that no fault explains is a violation."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from chaos.diary import Execution
from chaos.evidence import AttemptRow, Evidence, PromiseRow
from chaos.nemesis import Injected

# How long after a fault its effects may be found: a lease, and two sweeps on a busy machine.
LEASE_S = 10.0
AFTER_S = LEASE_S + 5.0
# Finished work is committed within 5 ms; a busy machine and a slow disk may take longer.
UNCOMMITTED_S = 1.0
UNDONE, INTERRUPTED = "claim undone", "interrupted"
# A kill is recorded at once after it happened.
KILL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How many executions were repeated, by reason; and what cannot be explained."""

    reasons: Counter[str]
    violations: list[str]


class Explainer:
    """Finds the fault that ended an attempt."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def cause(self, pids: set[int], began_at: float, ended_at: float) -> Injected | None:
        """Return the fault that hit one of the processes, or else all, in this time or shortly before: the last one."""
        known = [*self._evidence.faults, *self._evidence.deaths]
        found = [each for each in known if _explains(each, pids, began_at, ended_at)]
        return max(found, key=lambda each: (bool(each.pids & pids), each.began_at), default=None)

    def postgres_was_away(self, began_at: float, ended_at: float) -> bool:
        """Tell whether anything was done to PostgreSQL in this time or shortly before."""
        return any(
            _overlaps(each, began_at, ended_at) for each in self._evidence.faults if each.kind.startswith("PostgreSQL")
        )

    def reason(self, execution: Execution) -> str | None:
        """Return why what ``execution`` did was not kept; None if nothing explains it."""
        attempt = self._evidence.attempts.get((execution.promise_id, execution.attempt))
        promise = self._evidence.promises.get(execution.promise_id)
        ending = _ending(execution, attempt, promise) if promise else None
        if ending is None:
            return None
        ended_at = attempt.ended_at if attempt else execution.at
        # Only PostgreSQL interrupts an attempt that lives on.
        pids = set() if ending == INTERRUPTED else {execution.pid, execution.node_pid}
        fault = self.cause(pids, execution.at, max(ended_at, execution.at))
        if ending is UNDONE and not self._has_crashed(execution.at):
            return None
        return f"{ending}, {fault.kind}" if fault else None

    def _has_crashed(self, at: float) -> bool:
        crashes = [fault for fault in self._evidence.faults if fault.kind == "PostgreSQL restarted"]
        return any(crash.began_at - KILL_S <= at + AFTER_S and at <= crash.ended_at for crash in crashes)


def find_repeats(evidence: Evidence) -> Repeats:
    """Go through all executions of steps that were not meant to raise."""
    explainer = Explainer(evidence)
    kept = {(promise.parent_id, step): promise for promise, step in evidence.steps}
    executions: defaultdict[tuple[str, str], list[Execution]] = defaultdict(list)
    for execution in evidence.executions:
        if execution.step and not execution.is_failing:
            executions[execution.promise_id, execution.step].append(execution)
    reasons: Counter[str] = Counter()
    violations = [f"the record of {key} names no execution" for key in kept if key not in executions]
    for key, all_of_step in executions.items():
        checkpoint = kept.get(key)
        for execution in all_of_step:
            if checkpoint and checkpoint.value["execution"] == execution.id:
                continue
            if checkpoint is None and len(all_of_step) == 1:
                continue  # it was in hand when its function was canceled
            reasons[explainer.reason(execution) or "unexplained"] += 1
            violations += _violations(execution, checkpoint, evidence, explainer)
    return Repeats(reasons=reasons, violations=violations)


def find_losses(evidence: Evidence) -> list[str]:
    """Return the attempts that were lost although nothing was done to their process or to PostgreSQL."""
    explainer = Explainer(evidence)
    return [
        f"attempt {attempt.fence} of {attempt.promise_id} was lost, and no fault explains it"
        for attempt in evidence.attempts.values()
        if attempt.outcome == "lost"
        and explainer.cause({attempt.pid or 0}, attempt.started_at, attempt.ended_at) is None
    ]


def _violations(
    execution: Execution, checkpoint: PromiseRow | None, evidence: Evidence, explainer: Explainer
) -> Iterator[str]:
    named = f"step {execution.step!r} of {execution.promise_id}, attempt {execution.attempt} in {execution.pid}"
    attempt = evidence.attempts.get((execution.promise_id, execution.attempt))
    if explainer.reason(execution) is None:
        yield f"{named}: executed in vain at {execution.at:.3f}, and nothing explains it; the attempt: {attempt}"
    settled_at = checkpoint.settled_at if checkpoint else None
    if settled_at and attempt and attempt.started_at > settled_at and attempt.outcome != "fenced":
        yield f"{named}: executed by an attempt that was claimed after it had settled; the attempt: {attempt}"
    ended_at = evidence.ends.get(execution.id)
    if ended_at is None or attempt is None:
        return
    fault = explainer.cause({execution.pid}, ended_at, attempt.ended_at)
    if fault is None or not fault.kind.endswith("killed") or explainer.postgres_was_away(ended_at, fault.began_at):
        return
    if fault.began_at - ended_at > UNCOMMITTED_S:
        yield f"{named}: had been done for {fault.began_at - ended_at:.3f} s before its process was killed"


def _ending(execution: Execution, attempt: AttemptRow | None, promise: PromiseRow) -> str | None:
    """Return how the attempt ended, if it ended so that what it did may be void."""
    if attempt is None:
        return "without a record" if promise.state != "resolved" else UNDONE
    if attempt.pid == execution.pid and attempt.outcome in ("lost", "fenced"):
        return attempt.outcome
    # A crash of PostgreSQL may undo a claim, and its number is given out again.
    if attempt.pid != execution.pid or attempt.started_at > execution.at:
        return UNDONE
    return INTERRUPTED if attempt.error_type == "Interrupted" else None


def _explains(fault: Injected, pids: set[int], began_at: float, ended_at: float) -> bool:
    if fault.kind.startswith("PostgreSQL"):
        return _overlaps(fault, began_at, ended_at)
    # A node that is asked to end loses nothing.
    if not fault.pids & pids or fault.kind == "node stopped":
        return False
    if fault.kind.endswith(("killed", "itself")):
        return began_at - KILL_S <= fault.ended_at and fault.began_at <= ended_at
    return _overlaps(fault, began_at, ended_at)


def _overlaps(fault: Injected, began_at: float, ended_at: float) -> bool:
    return fault.began_at <= ended_at and began_at <= fault.ended_at + AFTER_S
