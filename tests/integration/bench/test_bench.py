"""The bench at its smallest, so that it cannot rot."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bench.installation import GaveUpError, Installation, Setting
from bench.run import Run
from bench.systems import BASES
from bench.systems.celery import SIDE
from bench.systems.flows import FLOWS
from bench.workloads import FAN_OUT_100, LATENCY, THROUGHPUT
from local.servers import Servers
from local.stack import Stack
from tests.conftest import NewServers

TINY = (
    (replace(LATENCY, times=2),),
    (
        replace(THROUGHPUT, times=3),
        replace(FAN_OUT_100, args=(4,), expected=4, times=1, warm_up=(2,), warm_up_expected=2),
    ),
)


@pytest.fixture
def servers(new_servers: NewServers) -> Iterator[Servers]:
    """Servers apart from others': their workers serve the same queues, and drop what is meant for these functions."""
    with new_servers("bench-servers") as started:
        yield started


@pytest.mark.timeout(300)  # starts twelve processes; 15 s where nobody else works
def test_flows_and_plain_celery_are_measured_in_turn(servers: Servers, tmp_path: Path):
    Stack(servers.environ, folder=tmp_path, only=()).migrate()
    run = Run(servers=servers, folder=tmp_path, systems=(FLOWS, *BASES), only=None, reps=1)
    rows = list(run.compare(Setting(pool="threads"), TINY, run.systems))
    assert [(row.workload, row.system, row.n) for row in rows] == [
        ("W1", "flows", 2),
        ("W1", "celery-nested", 2),
        ("W2", "flows", 3),
        ("W2", "celery-nested", 3),
        ("W3-100", "flows", 1),
        ("W3-100", "celery-chord", 1),
    ]
    assert all(row.ratio for row in rows)


@pytest.mark.timeout(300)  # starts four processes
def test_nothing_is_left_of_who_gave_up_that_would_go_on_beside_others(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with Installation(SIDE, servers, Setting(pool="threads"), tmp_path) as installation:
        installation.make_ready()
        assert len(of_celery()) == 4
        monkeypatch.setattr("bench.installation.GIVE_UP_S", 0.2)
        with installation.turn(), pytest.raises(GaveUpError):
            installation.ask("one_at_a_time", "sleepy_chord", [1, 2000], expected=1)
        assert of_celery() == []


def of_celery() -> list[psutil.Process]:
    """Its workers and its client, below this process."""
    below = psutil.Process().children(recursive=True)
    return [each for each in below if {"bench.plain", "bench.client"} & set(each.cmdline())]
