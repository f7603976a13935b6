"""The table and the page."""

import pytest

from bench.plot import speed_up
from bench.report import BEGIN, END, between_marks
from bench.rows import Row
from bench.table import figure, table

TIME = Row(workload="W1", title="chain", system="flows", setting="prefork", p50_ms=12.345, n=40, ratio=0.5)
RATE = Row(workload="W2", title="chains", system="flows", setting="prefork", per_s=1234.5, n=1000, ratio=2.0)


def test_a_table_has_a_line_for_each_row_and_three_digits():
    lines = table([TIME, RATE]).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert "| 12.3 " in lines[2]
    assert "| 1,234 " in lines[3]


def test_a_figure_has_its_unit():
    assert [figure(TIME), figure(RATE)] == ["12.3 ms", "1,234/s"]


def test_less_time_and_more_of_a_rate_are_both_faster():
    assert [speed_up(row, row.ratio or 0) for row in (TIME, RATE)] == [2, 2]


def test_the_page_keeps_what_stands_around_the_marks():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert between_marks(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="needs the marks"):
        between_marks("nothing", "new")
