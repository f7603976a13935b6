"""What was measured as rows: medians, ranges over the rounds, and the ratio to plain Celery in the same run."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.installation import GIVE_UP_S
from bench.measure import Rounds
from bench.workloads import Workload

# With fewer samples the 95th percentile is no more than the worst.
ENOUGH_FOR_P95 = 20
MS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of ``results.json``; None where something does not apply.

    ``ratio`` is of rates where there is one, and of times otherwise. The ranges are of single rounds: ``spread`` of the
    rate or of the median time in milliseconds, ``ratio_spread`` of the ratio to the base in the same round. ``extra``
    are figures of this workload alone, ``note`` is what people should read beside the figures.
    """

    workload: str
    title: str
    system: str
    setting: str
    p50_ms: float | None = None
    p95_ms: float | None = None
    per_s: float | None = None
    n: int = 0
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    ratio_spread: tuple[float, float] | None = None
    note: str = ""
    extra: Mapping[str, float] = field(default_factory=dict)


def rows(workload: Workload, setting: str, measured: Mapping[str, Rounds]) -> list[Row]:
    """Return a row for each system; one that ended no round has a row without figures."""
    base = measured.get(workload.base or "") or None
    return [_row(workload, setting, system, rounds, base) for system, rounds in measured.items()]


def median_and_range(figures: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the median, and the least and the greatest."""
    return statistics.median(figures), (min(figures), max(figures))


def _row(workload: Workload, setting: str, system: str, rounds: Rounds, base: Rounds | None) -> Row:
    row = Row(workload=workload.name, title=workload.title, system=system, setting=setting)
    if not rounds:
        return replace(row, note=f"not done in {GIVE_UP_S} s")
    samples = _samples(rounds)
    each_round = _figures(workload, rounds)
    figure = _figure(workload, samples)
    return replace(
        row,
        p50_ms=None if workload.is_rate else figure,
        p95_ms=None if workload.is_rate else _p95(workload, samples),
        per_s=figure if workload.is_rate else None,
        n=len(samples) * (workload.times if workload.way == "at_once" else 1),
        ratio=figure / _figure(workload, _samples(base)) if base else None,
        spread=(min(each_round), max(each_round)),
        ratio_spread=_ratios(each_round, _figures(workload, base)) if base else None,
    )


def _samples(rounds: Rounds) -> list[float]:
    return [seconds for each in rounds for seconds in each]


def _figures(workload: Workload, rounds: Rounds) -> list[float]:
    return [_figure(workload, seconds) for seconds in rounds]


def _figure(workload: Workload, seconds: list[float]) -> float:
    """Return the units a second, or the milliseconds of one, by the median."""
    median = statistics.median(seconds)
    return workload.units / median if workload.is_rate else median * MS / workload.units


def _p95(workload: Workload, samples: list[float]) -> float | None:
    if len(samples) < ENOUGH_FOR_P95:
        return None
    return statistics.quantiles(samples, n=20)[18] * MS / workload.units


def _ratios(figures: list[float], base: list[float]) -> tuple[float, float]:
    # Of a system that gave up there are fewer rounds.
    ratios = [mine / theirs for mine, theirs in zip(figures, base, strict=False)]
    return min(ratios), max(ratios)
