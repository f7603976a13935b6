import json
from datetime import timedelta

import pytest

from flows.domain.errors import InvalidInputError
from flows.domain.retry import Constant, Exponential, Never, from_json, to_json

SECOND = timedelta(seconds=1)
BOOM = ValueError("boom")


def test_exponential_waits_double_up_to_the_maximum_with_some_jitter():
    policy = Exponential(maximum=10 * SECOND)
    waits = [policy.delay(failures, BOOM, "p") for failures in range(1, 8)]
    for wait, least in zip(waits, (1, 2, 4, 8, 10, 10, 10), strict=True):
        assert least * SECOND <= (wait or timedelta(0)) <= 1.2 * least * SECOND


def test_promises_that_failed_together_do_not_come_back_together():
    assert len({Exponential().delay(1, BOOM, f"p{n}") for n in range(100)}) > 90


def test_policies_give_up():
    assert Exponential(max_attempts=3).delay(3, BOOM, "p") is None
    assert Constant(SECOND, max_attempts=2).delay(1, BOOM, "p") == SECOND
    assert Constant(SECOND, max_attempts=2).delay(2, BOOM, "p") is None
    assert Never().delay(1, BOOM, "p") is None


def test_waits_that_no_clock_can_hold_are_the_maximum():
    for policy in (Exponential(max_attempts=10_000), Exponential(factor=10, max_attempts=10_000)):
        wait = policy.delay(5_000, BOOM, "p")
        assert wait is not None
        assert wait <= timedelta(seconds=72)


def test_waits_may_be_seconds():
    assert Constant(0.5).delay(1, BOOM, "p") == SECOND / 2
    assert (Exponential(initial=2, maximum=3).delay(9, BOOM, "p") or SECOND) >= 3 * SECOND


@pytest.mark.parametrize(
    "make", [lambda: Constant(-1), lambda: Exponential(initial=float("nan")), lambda: Exponential(maximum=-1)]
)
def test_waits_that_are_none_are_refused_at_once(make):
    with pytest.raises(InvalidInputError, match="must be"):
        make()


@pytest.mark.parametrize(
    "policy", [Exponential(initial=2, non_retryable=("A", KeyError)), Constant(3, max_attempts=2), Never()], ids=str
)
def test_policies_travel_as_json(policy):
    assert from_json(json.loads(json.dumps(to_json(policy)))) == policy


def test_a_policy_of_somebodys_own_cannot_travel():
    with pytest.raises(InvalidInputError, match="give others to @durable"):
        to_json(object())  # type: ignore[arg-type]  # that is refused


@pytest.mark.parametrize("options", [{"max_attempts": 0}, {"non_retryable": "ValueError"}], ids=str)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InvalidInputError):
        Constant(1, **options)
