"""The figures of a run: as text for people, and as JSON for the test."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from chaos.evidence import AttemptRow, Evidence
from chaos.judge import find_violations, is_in_time, is_settled, settlements
from chaos.nemesis import Injected
from chaos.repeats import find_repeats

ENOUGH_IN_TIME = 0.95
ENOUGH_FAULTS = 10
SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeFigures:
    """How many flows of a shape there were, settled, and settled in time; and the slowest, in seconds."""

    flows: int
    settled: int
    in_time: int
    slowest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultFigures:
    """How often a fault was injected, and how long it took until work went on, in seconds.

    ``taken_over`` is how often a process was hit that had work in hand: then the time is from the fault until another
    session claimed some of it. Otherwise it is from the end of the fault until both groups had settled another call.
    """

    injected: int
    taken_over: int
    median_s: float | None
    worst_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All figures of a run."""

    seed: int
    shapes: dict[str, ShapeFigures]
    faults: dict[str, FaultFigures]
    promises: int
    attempts: dict[str, int]
    executions: int
    repeats: dict[str, int]
    deaths: list[str]
    violations: list[str]

    @property
    def flows(self) -> int:
        """How many flows there were."""
        return sum(figures.flows for figures in self.shapes.values())

    @property
    def share_in_time(self) -> float:
        """Which part of the flows had settled in time."""
        return sum(figures.in_time for figures in self.shapes.values()) / self.flows

    @property
    def injected(self) -> int:
        """How many faults were injected."""
        return sum(figures.injected for figures in self.faults.values())

    @property
    def is_good(self) -> bool:
        """True if nothing broke, nearly all was in time, and there was enough to break it."""
        all_settled = all(figures.settled == figures.flows for figures in self.shapes.values())
        is_enough = self.share_in_time >= ENOUGH_IN_TIME and self.injected >= ENOUGH_FAULTS
        return is_enough and all_settled and not self.violations


def make_report(seed: int, evidence: Evidence, violations: list[str]) -> Report:
    """Work out all figures; ``violations`` are those that were seen during the run."""
    repeats = find_repeats(evidence)
    return Report(
        seed=seed,
        shapes=_shapes(evidence),
        faults=_faults(evidence),
        promises=len(evidence.promises),
        attempts=dict(Counter(attempt.outcome for attempt in evidence.attempts.values()).most_common()),
        executions=sum(1 for execution in evidence.executions if execution.step),
        repeats=dict(repeats.reasons.most_common()),
        deaths=[death.what for death in evidence.deaths],
        violations=[*violations, *find_violations(evidence), *repeats.violations],
    )


def lines(report: Report) -> Iterator[str]:
    """Return the report as text."""
    yield f"{'flows':<28}{'settled':>9}{'in time':>9}{'slowest':>10}"
    for shape, figures in sorted(report.shapes.items()):
        yield f"  {figures.flows:>4} {shape:<21}{figures.settled:>9}{figures.in_time:>9}{figures.slowest_s:>8.1f} s"
    yield f"  {report.flows:>4} in all, {report.share_in_time:.1%} in time; {report.promises} promises"
    attempts = ", ".join(f"{count} {outcome}" for outcome, count in report.attempts.items())
    yield f"attempts: {attempts}"
    yield f"{'faults':<34}{'taken over':>12}{'recovery: median':>18}{'worst':>10}"
    for kind, fault in sorted(report.faults.items()):
        times = f"{_seconds(fault.median_s):>18}{_seconds(fault.worst_s):>10}"
        yield f"  {fault.injected:>4} {kind:<27}{fault.taken_over:>12}{times}"
    yield f"  {report.injected:>4} in all"
    yield f"steps: {report.executions} executions, {sum(report.repeats.values())} of them in vain"
    yield from (f"  {count:>4} {reason}" for reason, count in report.repeats.items())
    if report.deaths:
        yield f"nodes that ended by themselves: {len(report.deaths)}; {'; '.join(report.deaths)}"
    yield f"violations: {len(report.violations) or 'none'}"
    yield from (f"  {violation}" for violation in report.violations[:SHOWN])
    if len(report.violations) > SHOWN:
        yield f"  and {len(report.violations) - SHOWN} more"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _shapes(evidence: Evidence) -> dict[str, ShapeFigures]:
    shapes = dict.fromkeys(flow.shape for flow in evidence.planned)
    return {shape: _shape(shape, evidence) for shape in shapes}


def _shape(shape: str, evidence: Evidence) -> ShapeFigures:
    flows = [flow for flow in evidence.planned if flow.shape == shape]
    rows = [row for flow in flows if (row := evidence.promises.get(flow.id))]
    return ShapeFigures(
        flows=len(flows),
        settled=sum(is_settled(flow, evidence) for flow in flows),
        in_time=sum(is_in_time(flow, evidence) for flow in flows),
        slowest_s=max((row.settled_at - row.created_at for row in rows if row.settled_at), default=0.0),
    )


def _faults(evidence: Evidence) -> dict[str, FaultFigures]:
    settled = settlements(evidence)
    lost: defaultdict[int, list[AttemptRow]] = defaultdict(list)
    for attempt in evidence.attempts.values():
        if attempt.outcome in ("lost", "fenced"):
            lost[attempt.pid or 0].append(attempt)
    by_kind: defaultdict[str, list[tuple[float | None, float | None]]] = defaultdict(list)
    for fault in evidence.faults:
        nexts = [next((at for at in of_group if at > fault.ended_at), None) for of_group in settled.values()]
        progress_s = max((at - fault.ended_at for at in nexts if at), default=None)
        by_kind[fault.kind].append((_takeover_s(fault, evidence, lost), progress_s))
    return {kind: _fault_figures(times) for kind, times in by_kind.items()}


def _fault_figures(times: list[tuple[float | None, float | None]]) -> FaultFigures:
    known = [took for takeover_s, progress_s in times if (took := takeover_s or progress_s) is not None]
    return FaultFigures(
        injected=len(times),
        taken_over=sum(takeover_s is not None for takeover_s, _ in times),
        median_s=statistics.median(known) if known else None,
        worst_s=max(known, default=None),
    )


def _takeover_s(fault: Injected, evidence: Evidence, lost: dict[int, list[AttemptRow]]) -> float | None:
    """Return how long it took until another session claimed something that was in the hands of what the fault hit."""
    affected = [
        attempt
        for pid in fault.pids
        for attempt in lost.get(pid, [])
        if attempt.started_at <= fault.ended_at and attempt.ended_at >= fault.began_at
    ]
    claims = [
        later.started_at - fault.began_at
        for attempt in affected
        if (later := evidence.attempts.get((attempt.promise_id, attempt.fence + 1)))
        and later.started_at >= fault.began_at
    ]
    return min(claims, default=None)
