"""The invariants, each checked on what the run has left behind; what breaks one is told in a sentence."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

from chaos.evidence import Evidence, PromiseRow
from chaos.plan import GRACE_S, Planned
from chaos.repeats import find_losses

IN_VAIN = ("lost", "fenced")
# No fault keeps a whole group from working for longer: the longest outage takes 12 s, the longest freeze of one of its
# nodes 14 s.
STALL_S = 20.0
TOLD = 3
CALLS = ("root", "rpc", "rfi", "detached")
# Calls that wait for hardly anything but a worker.
SHORT = ("leaf", "broken", "deposit", "doomed", "steps")


def is_settled(flow: Planned, evidence: Evidence) -> bool:
    """Tell whether the flow has an outcome."""
    root = evidence.promises.get(flow.id)
    return root is not None and root.settled_at is not None


def is_in_time(flow: Planned, evidence: Evidence) -> bool:
    """Tell whether the flow had its outcome within what it takes undisturbed, and the grace."""
    root = evidence.promises.get(flow.id)
    if root is None or root.settled_at is None:
        return False
    return root.settled_at - root.created_at <= flow.outcome.takes_s + GRACE_S


def find_violations(evidence: Evidence) -> list[str]:
    """Return every break of an invariant, but for steps that were repeated without a reason."""
    return [
        *_wrong_outcomes(evidence),
        *_wrong_detached(evidence),
        *(f"a settled promise was changed: {change}" for change in evidence.changed),
        *_wrong_entries(evidence),
        *_late_bodies(evidence),
        *_shared_fences(evidence),
        *_late_deadlines(evidence.promises),
        *_orphans(evidence.promises),
        *find_losses(evidence),
        *_stalls(evidence),
    ]


def _wrong_outcomes(evidence: Evidence) -> Iterator[str]:
    for flow in evidence.planned:
        root = evidence.promises.get(flow.id)
        if root is None:
            yield f"{flow.id} was never started"
        elif root.settled_at is None:
            yield f"{flow.id} never settled: it is {root.phase}, {root.note or 'no note'}; {_waiting(flow, evidence)}"
        elif flow.outcome.error is not None:
            if root.state != "rejected" or flow.outcome.error not in _messages(root.error):
                yield f"{flow.id} is {root.state} with {root.value!r}, not rejected with {flow.outcome.error!r}"
        elif root.state != "resolved" or root.value != flow.outcome.value:
            yield f"{flow.id} is {root.state} with {root.value!r} or {root.error}, not {flow.outcome.value!r}"


def _waiting(flow: Planned, evidence: Evidence) -> str:
    pending = [
        f"{promise.id} ({promise.group}, {promise.kind}, {promise.phase or 'no phase'}, {promise.note or 'no note'})"
        for promise in evidence.promises.values()
        if promise.root_id == flow.id and promise.settled_at is None and promise.id != flow.id
    ]
    return f"{len(pending)} wait below it: {', '.join(pending[:TOLD])}"


def _messages(error: dict[str, object] | None) -> list[object]:
    messages = []
    while error:
        messages.append(error["message"])
        cause = error.get("cause")
        error = cause if isinstance(cause, dict) else None
    return messages


def _wrong_detached(evidence: Evidence) -> Iterator[str]:
    detached = [promise for promise in evidence.promises.values() if promise.kind == "detached"]
    yield from (f"{promise.id} is {promise.state}" for promise in detached if promise.state != "resolved")
    started = Counter(promise.parent_id for promise in detached)
    for flow in evidence.planned:
        if started[flow.id] != flow.outcome.detached:
            yield f"{flow.id} started {started[flow.id]} detached calls, not {flow.outcome.detached}"


def _wrong_entries(evidence: Evidence) -> Iterator[str]:
    """Each atomic step that has a record has written one entry; nothing else has."""
    books = ((promise, step) for promise, step in evidence.steps if promise.function.startswith("book"))
    recorded = {(promise.parent_id or "", step) for promise, step in books}
    for key, count in evidence.entries.items():
        if count != 1:
            yield f"atomic step {key} wrote {count} entries"
        if key not in recorded:
            yield f"atomic step {key} wrote an entry, and has no record"
    yield from (f"atomic step {key} is recorded, and wrote nothing" for key in recorded if not evidence.entries[key])


def _late_bodies(evidence: Evidence) -> Iterator[str]:
    """No function runs once it has settled, but for attempts that were overtaken, and calls that were canceled."""
    for execution in evidence.executions:
        promise = evidence.promises.get(execution.promise_id)
        if promise is None:
            yield f"{execution.promise_id} ran, and does not exist"
            continue
        if not promise.settled_at or execution.at <= promise.settled_at or promise.state == "canceled":
            continue
        attempt = evidence.attempts.get((execution.promise_id, execution.attempt))
        if attempt is None or attempt.outcome not in IN_VAIN:
            yield f"{promise.id} ran {execution.at - promise.settled_at:.3f} s after it had settled: {attempt}"


def _shared_fences(evidence: Evidence) -> Iterator[str]:
    """No two processes run the same attempt; a claim that a crash of PostgreSQL undid may be given out again."""
    crashes = [fault for fault in evidence.faults if fault.kind == "PostgreSQL restarted"]
    holders: dict[tuple[str, int], tuple[int, float]] = {}
    for execution in evidence.executions:
        key = (execution.promise_id, execution.attempt)
        pid, at = holders.setdefault(key, (execution.pid, execution.at))
        if pid != execution.pid and not any(at - 1 <= crash.ended_at <= execution.at + 1 for crash in crashes):
            yield f"attempt {key} ran in process {pid} and in {execution.pid}"


def _late_deadlines(promises: dict[str, PromiseRow]) -> Iterator[str]:
    for child, parent in _families(promises):
        if child.kind != "detached" and child.deadline_at > parent.deadline_at:
            yield f"the deadline of {child.id} is later than that of {parent.id}"


def _orphans(promises: dict[str, PromiseRow]) -> Iterator[str]:
    for child, parent in _families(promises):
        # Steps that were to be tried again end with their function, and have no life of their own.
        is_own = child.kind not in ("detached", "run")
        if is_own and child.settled_at is None and parent.settled_at is not None:
            yield f"{child.id} ({child.kind}) is pending, and {parent.id} is {parent.state}"


def _families(promises: dict[str, PromiseRow]) -> Iterable[tuple[PromiseRow, PromiseRow]]:
    return (
        (child, promises[child.parent_id])
        for child in promises.values()
        if child.parent_id is not None and child.parent_id in promises
    )


def settlements(evidence: Evidence) -> dict[str, list[float]]:
    """Return when calls of each of chaos' own groups settled, in order; without those that others canceled."""
    groups: dict[str, list[float]] = {"north": [], "south": []}
    for promise in evidence.promises.values():
        if promise.settled_at and promise.group in groups and promise.kind in CALLS and promise.state != "canceled":
            groups[promise.group].append(promise.settled_at)
    return {group: sorted(found) for group, found in groups.items()}


def _stalls(evidence: Evidence) -> Iterator[str]:
    """Neither group stands still for long while it has something to do."""
    short = [promise for promise in evidence.promises.values() if promise.function in SHORT and promise.settled_at]
    for group, settled in settlements(evidence).items():
        for before, after in pairwise(settled):
            waited = [
                promise
                for promise in short
                if promise.group == group and promise.created_at < before and (promise.settled_at or 0) >= after
            ]
            if after - before > STALL_S and waited:
                yield f"group {group} settled nothing for {after - before:.1f} s, and {len(waited)} calls waited"
