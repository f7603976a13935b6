"""Whose turn it is."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from bench.measure import WARM_UP, measure
from bench.systems.celery import CELERY_NESTED
from bench.systems.flows import FLOWS
from bench.workloads import CALLS_10, CALLS_1000


class Installation:
    """Takes a second for each call, and notes what was asked in turns that count."""

    is_given_up = False

    def __init__(self, name, asked):
        self.name, self.asked = name, asked

    def turn(self):
        return nullcontext()

    def ask(self, way, call, args, *, expected, times):
        if times != WARM_UP:
            self.asked.append((self.name, *args))
        return [1.0] * times


@pytest.fixture
def asked():
    return []


@pytest.fixture
def installations(asked):
    return {name: Installation(name, asked) for name in ("flows", "celery")}


def test_workloads_and_systems_take_turns_round_by_round(installations, asked):
    together = (replace(CALLS_10, rounds=2, times=1), replace(CALLS_1000, rounds=1))
    measured = measure(together, (FLOWS, CELERY_NESTED), installations)
    assert asked == [("flows", 10), ("celery", 10), ("flows", 1000), ("celery", 1000), ("flows", 10), ("celery", 10)]
    assert measured == {
        "W5-10": {"flows": [[1.0], [1.0]], "celery-nested": [[1.0], [1.0]]},
        "W5-1000": {"flows": [[1.0]], "celery-nested": [[1.0]]},
    }


def test_as_many_rounds_as_were_asked_for(installations):
    measured = measure([CALLS_1000], [FLOWS], installations, rounds=1)
    assert measured == {"W5-1000": {"flows": [[1.0]]}}
