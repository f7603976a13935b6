"""The ratios to plain Celery as a plot: one bar for each system and workload, the range of the rounds on it."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.rows import Row

SETTING = "prefork"
COLOURS = ("#1f6f8b", "#9a9a9a", "#c8c8c8", "#b08968", "#ddb892", "#7f5539", "#e07a5f", "#f2cc8f")
WIDTH_IN, INCHES_A_BAR = 8.0, 0.28


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw how much faster than plain Celery each system is: shorter times, or higher rates, to the right of 1."""
    # The same rows give the same file: no time of drawing, no random ids.
    mpl.rcParams["svg.hashsalt"] = "performance"
    shown = [row for row in rows if row.ratio and row.setting == SETTING]
    systems = list(dict.fromkeys(row.system for row in shown))
    figure = Figure(figsize=(WIDTH_IN, 1 + INCHES_A_BAR * len(shown)), layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(shown):
        ratio = row.ratio or 1
        lowest, highest = sorted(speed_up(row, each) for each in row.ratio_spread or (ratio, ratio))
        axes.barh(number, speed_up(row, ratio), color=COLOURS[systems.index(row.system) % len(COLOURS)])
        axes.plot([lowest, highest], [number, number], color="black", linewidth=1)
    axes.set_yticks(range(len(shown)), [f"{row.workload}  {row.system}" for row in shown])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast as plain Celery in the same run (logarithmic)")
    figure.savefig(path, format="svg", metadata={"Date": None})


def speed_up(row: Row, ratio: float) -> float:
    """Return how many times as fast as the base a ratio is: of times, less is better."""
    return ratio if row.per_s is not None else 1 / ratio
