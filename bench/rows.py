"""What was measured as rows: medians, ranges over the rounds, and the ratio to plain Celery in the same run."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from bench.measure import Rounds
from bench.workloads import Workload

# With fewer samples the 95th percentile is no more than the worst.
ENOUGH_FOR_P95 = 20
MS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of ``results.json``; None where something does not apply.

    ``ratio`` is of rates where there is one, and of times otherwise. The ranges are of single rounds: ``spread`` of the
    rate or of the median time in milliseconds, ``ratio_spread`` of the ratio to the base in the same round.
    """

    workload: str
    title: str
    system: str
    setting: str
    p50_ms: float | None = None
    p95_ms: float | None = None
    per_s: float | None = None
    n: int
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    ratio_spread: tuple[float, float] | None = None


def rows(workload: Workload, setting: str, measured: Mapping[str, Rounds]) -> list[Row]:
    """Return a row for each system."""
    base = measured.get(workload.base or "")
    return [_row(workload, setting, system, rounds, base) for system, rounds in measured.items()]


def _row(workload: Workload, setting: str, system: str, rounds: Rounds, base: Rounds | None) -> Row:
    samples = [seconds for each in rounds for seconds in each]
    each_round = _figures(workload, rounds)
    figure = _figure(workload, samples)
    is_rate = workload.units is not None
    return Row(
        workload=workload.name,
        title=workload.title,
        system=system,
        setting=setting,
        p50_ms=None if is_rate else figure,
        p95_ms=None if is_rate or len(samples) < ENOUGH_FOR_P95 else statistics.quantiles(samples, n=20)[18] * MS,
        per_s=figure if is_rate else None,
        n=len(samples) * (workload.times if workload.way == "at_once" else 1),
        ratio=figure / _figure(workload, [seconds for each in base for seconds in each]) if base else None,
        spread=(min(each_round), max(each_round)),
        ratio_spread=_ratios(each_round, _figures(workload, base)) if base else None,
    )


def _figures(workload: Workload, rounds: Rounds) -> list[float]:
    return [_figure(workload, seconds) for seconds in rounds]


def _figure(workload: Workload, seconds: list[float]) -> float:
    """Return the rate in units a second, or the median in milliseconds."""
    median = statistics.median(seconds)
    return workload.units / median if workload.units else median * MS


def _ratios(figures: list[float], base: list[float]) -> tuple[float, float]:
    ratios = [mine / theirs for mine, theirs in zip(figures, base, strict=True)]
    return min(ratios), max(ratios)
