"""Medians, ranges and ratios out of seconds."""

import pytest

from bench.rows import rows
from bench.workloads import CALLS_10, LATENCY, THROUGHPUT


def test_a_time_is_the_median_of_all_samples_in_milliseconds_and_its_range_that_of_the_rounds():
    [row] = rows(LATENCY, "prefork", {"celery-nested": [[0.010, 0.030, 0.020], [0.040, 0.050, 0.060]]})
    assert row.p50_ms == pytest.approx(35)
    assert row.spread == pytest.approx((20, 50))
    assert (row.per_s, row.n) == (None, 6)


def test_a_rate_counts_what_a_round_did():
    [row] = rows(THROUGHPUT, "prefork", {"celery-nested": [[2.0], [4.0], [5.0]]})
    assert row.per_s == pytest.approx(250)
    assert (row.p50_ms, row.n) == (None, 3000)


def test_the_time_of_one_of_many_calls_is_a_share():
    [row] = rows(CALLS_10, "prefork", {"celery-nested": [[0.1]]})
    assert row.p50_ms == pytest.approx(10)


def test_ratios_are_to_the_base_in_all_rounds_and_in_each():
    ours, _ = rows(LATENCY, "prefork", {"flows": [[0.1], [0.3]], "celery-nested": [[0.2], [0.2]]})
    assert ours.ratio == pytest.approx(1)
    assert ours.ratio_spread == pytest.approx((0.5, 1.5))


def test_the_95th_percentile_needs_enough_samples():
    few, enough = rows(LATENCY, "prefork", {"flows": [[0.01] * 19], "celery-nested": [[0.01] * 20]})
    assert few.p95_ms is None
    assert enough.p95_ms == pytest.approx(10)


def test_who_ended_no_round_has_a_row_without_figures_and_is_no_base():
    ours, base = rows(LATENCY, "prefork", {"flows": [[0.1]], "celery-nested": []})
    assert (base.p50_ms, base.n, base.note) == (None, 0, "not done in 45 s")
    assert ours.ratio is None
