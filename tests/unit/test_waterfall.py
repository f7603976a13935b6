from dataclasses import replace
from datetime import timedelta

import pytest

from flows import waterfall
from flows.domain.promise import AttemptOutcome, Phase, State
from flows.domain.tree import Tree, TreeAttempt
from tests.unit.domain.test_tree import NOW, promise

END = NOW + timedelta(seconds=10)


def done(promise_id, function="f", state=State.RESOLVED):
    return replace(promise(promise_id, function, state), settled_at=END)


def drawing(*promises, flipped=(), now=END, is_cut=False):
    tree = Tree(promises=promises, now=now, is_cut=is_cut)
    return waterfall.lay_out(tree, path="/here", flipped=flipped, href=lambda promise_id: f"/{promise_id}")


def shown(drawn):
    return [(row.level, row.call, row.count) for row in drawn.rows]


WIDE = [done("p", "zim"), *(done(f"p.{n}", "rax", State.REJECTED if n < 2 else State.RESOLVED) for n in range(12))]


def test_wide_siblings_are_one_row_until_they_are_unfolded():
    assert shown(drawing(*WIDE)) == [(0, "zim", 1), (1, "rax", 12)]
    row = drawing(*WIDE).rows[1]
    assert [(state.count, state.word) for state in row.states] == [(10, "resolved"), (2, "rejected")]
    assert row.flip_url == "/here?flip=p.0%2A"
    assert len(drawing(*WIDE, flipped=["p.0*"]).rows) == 14


def test_what_a_promise_called_can_be_folded():
    promises = [done("p"), done("p.0"), done("p.0.0")]
    assert shown(drawing(*promises, flipped=["p.0"])) == [(0, "f", 1), (1, "f", 1)]
    assert [row.is_open for row in drawing(*promises, flipped=["p.0"]).rows] == [True, False]


def test_flipping_twice_leads_back():
    folded = drawing(done("p"), done("p.0"), flipped=["p"])
    assert (folded.url, folded.rows[0].flip_url) == ("/here?flip=p", "/here")


def test_bars_are_percentages_of_the_whole_time():
    attempt = TreeAttempt(
        fence=1,
        outcome=AttemptOutcome.FAILED,
        node="n",
        started_at=NOW + timedelta(seconds=2),
        ended_at=NOW + timedelta(seconds=5),
        error="",
    )
    (row,) = drawing(replace(done("p"), attempts=(attempt,))).rows
    assert [(bar.css, bar.x, bar.end) for bar in row.bars] == [
        ("queued", "0.000", "20.000"),
        ("running", "20.000", "50.000"),
        ("backing-off", "50.000", "100.000"),
    ]
    assert [(dot.css, dot.x) for dot in row.dots] == [("failed", "50.000")]
    assert row.told == "queued 2 s, running 3 s, backing off 5 s, attempt 1 failed"
    assert row.attempts == "1, 1 failed"


@pytest.mark.parametrize(
    ("seconds", "labels"), [(10, ["0 ms", "2 s", "4 s", "6 s", "8 s", "10 s"]), (0, ["0 ms", "1 ms"])]
)
def test_ticks_are_round(seconds, labels):
    drawn = drawing(replace(done("p"), settled_at=NOW + timedelta(seconds=seconds)))
    assert [label for _, label in drawn.ticks] == labels


def test_a_page_asks_again_while_something_is_pending_and_more_rarely_when_all_is_quiet():
    pending = promise("p")
    assert drawing(done("p")).poll_s is None
    assert drawing(pending).poll_s == waterfall.POLL_S
    assert drawing(pending, now=NOW + timedelta(hours=1)).poll_s == waterfall.SLOW_POLL_S


def test_a_parent_says_for_how_many_calls_it_waits():
    suspended = replace(promise("p"), phase=Phase.SUSPENDED)
    calls = [replace(promise(f"p.{n}"), is_awaited=n > 0) for n in range(12)]
    assert drawing(suspended, *calls).rows[0].standing == "waits for 11 calls"


def test_no_depth_is_too_deep():
    promises = [replace(done("p" + ".0" * depth), depth=depth) for depth in range(3_000)]
    assert [row.level for row in drawing(*promises).rows][-1] == 2_999
    assert drawing(*promises).rows[-1].indent == waterfall.MAX_INDENT
