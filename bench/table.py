"""Rows as a Markdown table, that reads well on a terminal, too."""

from collections.abc import Sequence

from bench.rows import Row

HEAD = ("workload", "system", "setting", "p50 ms", "p95 ms", "per s", "range", "ratio", "range", "n", "")


def table(rows: Sequence[Row]) -> str:
    """Return all rows as one table."""
    lines = [HEAD, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    texts = [_line(line, widths) for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def figure(row: Row) -> str:
    """Return what a row says, in short."""
    if row.per_s is not None:
        return f"{_number(row.per_s)}/s"
    return f"{_number(row.p50_ms)} ms" if row.p50_ms is not None else row.note


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.workload}: {row.title}",
        row.system,
        row.setting,
        _number(row.p50_ms),
        _number(row.p95_ms),
        _number(row.per_s),
        _range(row.spread),
        _number(row.ratio),
        _range(row.ratio_spread),
        str(row.n),
        row.note,
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _range(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{_number(ends[0])} to {_number(ends[1])}"


def _number(value: float | None) -> str:
    """Three digits are as much as such a figure says."""
    if value is None:
        return ""
    if value >= 100:  # noqa: PLR2004 - from here on three digits are before the point
        return f"{value:,.0f}"
    return f"{value:.3g}"
