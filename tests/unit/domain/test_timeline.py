from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flows.domain.durations import in_words
from flows.domain.promise import AttemptOutcome, Kind, Phase, State
from flows.domain.timeline import in_one_line, marks, spans, standing
from flows.domain.tree import TreeAttempt, TreePromise

BORN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = BORN + timedelta(hours=1)


def at(second: float) -> datetime:
    return BORN + timedelta(seconds=second)


def attempt(fence: int, begun: float, ended: float, outcome: AttemptOutcome) -> TreeAttempt:
    return TreeAttempt(fence=fence, outcome=outcome, node="n", started_at=at(begun), ended_at=at(ended), error="")


PROMISE = TreePromise(
    id="p",
    parent_id=None,
    root_id="p",
    depth=0,
    position=0,
    kind=Kind.ROOT,
    group="g",
    function="f",
    addressee="",
    state=State.PENDING,
    phase=Phase.READY,
    note="",
    error="",
    created_at=BORN,
    deadline_at=HOUR,
    ready_at=BORN,
    settled_at=None,
    claimed_at=None,
    fence=0,
    failures=0,
    losses=0,
    node="",
    is_awaited=False,
    attempts=(),
)


def shown(promise, now=10):
    """Return each span as what was done and the seconds when it began and ended."""
    return [
        (str(span.spent), (span.begun_at - BORN).total_seconds(), (span.ended_at - BORN).total_seconds())
        for span in spans(promise, at(now))
    ]


def test_before_its_first_attempt_a_promise_is_queued():
    assert shown(PROMISE) == [("queued", 0, 10)]


def test_what_runs_runs_until_now():
    running = replace(PROMISE, phase=Phase.CLAIMED, claimed_at=at(2))
    assert shown(running) == [("queued", 0, 2), ("running", 2, 10)]


def test_what_is_suspended_waits():
    suspended = replace(
        PROMISE, phase=Phase.SUSPENDED, attempts=(attempt(1, 1, 2, AttemptOutcome.SUSPENDED),), ready_at=None
    )
    assert shown(suspended) == [("queued", 0, 1), ("running", 1, 2), ("waiting", 2, 10)]


def test_a_failure_backs_off_until_its_time_and_then_is_queued():
    failed = replace(PROMISE, attempts=(attempt(1, 0, 1, AttemptOutcome.FAILED),), ready_at=at(5))
    assert shown(failed) == [("running", 0, 1), ("backing off", 1, 5), ("queued", 5, 10)]
    assert shown(failed, now=3) == [("running", 0, 1), ("backing off", 1, 3)]


def test_a_settled_promise_ends_when_it_settled():
    done = replace(
        PROMISE,
        state=State.RESOLVED,
        phase=Phase.NONE,
        settled_at=at(3),
        attempts=(attempt(1, 1, 3, AttemptOutcome.RESOLVED),),
    )
    assert shown(done) == [("queued", 0, 1), ("running", 1, 3)]


def test_a_lost_attempt_ends_at_the_latest_when_the_next_one_begins():
    lost = attempt(1, 0, 9, AttemptOutcome.LOST)
    again = replace(PROMISE, phase=Phase.CLAIMED, claimed_at=at(4), attempts=(lost,))
    assert shown(again) == [("running", 0, 4), ("running", 4, 10)]


def test_time_between_an_outcome_and_a_retry_is_nobody_s():
    reopened = replace(
        PROMISE,
        phase=Phase.CLAIMED,
        claimed_at=at(8),
        ready_at=at(7),
        attempts=(attempt(1, 0, 1, AttemptOutcome.REJECTED),),
    )
    assert shown(reopened) == [("running", 0, 1), ("running", 8, 10)]


@pytest.mark.parametrize("kind", [Kind.TIMER, Kind.EXTERNAL])
def test_timers_and_people_are_waited_for(kind):
    assert shown(replace(PROMISE, kind=kind, phase=Phase.NONE)) == [("waiting", 0, 10)]


def test_a_local_step_takes_no_time_of_its_own_and_is_marked():
    step = replace(PROMISE, kind=Kind.RUN, state=State.RESOLVED, phase=Phase.NONE, settled_at=at(1))
    assert shown(step) == []
    assert [(mark.at, mark.text) for mark in marks(step)] == [(at(1), "step resolved")]


def test_attempts_that_did_not_end_as_they_should_are_marked():
    outcomes = [AttemptOutcome.SUSPENDED, AttemptOutcome.FAILED, AttemptOutcome.LOST, AttemptOutcome.FENCED]
    tried = replace(PROMISE, attempts=tuple(attempt(n, n, n + 1, each) for n, each in enumerate(outcomes, 1)))
    assert [mark.text for mark in marks(tried)] == ["attempt 2 failed", "attempt 3 lost", "attempt 4 fenced"]


def test_one_line_says_the_same():
    failed = replace(PROMISE, attempts=(attempt(1, 0, 1, AttemptOutcome.FAILED),), ready_at=at(5))
    assert in_one_line(failed, at(10)) == "queued 5 s, running 1 s, backing off 4 s, attempt 1 failed"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": State.RESOLVED}, ""),
        ({"kind": Kind.EXTERNAL}, "waits for somebody to settle it"),
        ({"kind": Kind.TIMER}, "wakes up in 59 min 50 s"),
        ({"kind": Kind.RUN}, "a step that is tried again"),
        ({"phase": Phase.CLAIMED, "node": "n"}, "runs on n"),
        ({"phase": Phase.SUSPENDED}, "waits for 3 calls"),
        ({"phase": Phase.ASIDE}, "set aside"),
        ({"ready_at": at(12)}, "next attempt in 2 s"),
        ({}, "waits for a worker of g"),
    ],
)
def test_a_pending_promise_says_what_it_waits_for(changes, expected):
    assert standing(replace(PROMISE, **changes), at(10), awaits=3) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (1.236, "1.24 s"),
        (59, "59 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (7_500, "2 h 5 min"),
        (188_000, "2 d 4 h"),
        (-2, "-2 s"),
    ],
)
def test_durations_are_told_in_at_most_two_units(seconds, expected):
    assert in_words(timedelta(seconds=seconds)) == expected
