"""Workers are stopped and started under load, and while flows wait for their time."""

import os
import signal

import psycopg
import pytest
from psycopg.rows import dict_row

from local.process import ROOT
from local.stack import Stack
from tests.waiting import wait_until

# Long before the lease of a node ends, which is after 10 s.
NO_LEASE_WAITED_FOR_S = 7
ENDED_WITHIN_S = 5

WORKERS = ["worker-a", "worker-b", "worker-c"]
SIGNED_OFF = "SELECT count(*) AS nodes FROM flows_node WHERE pid = %(pid)s AND stopped_at IS NOT NULL"
WORKED = "SELECT count(*) AS attempts FROM flows_attempt a JOIN flows_node n ON n.id = a.node_id WHERE n.pid = %(pid)s"


@pytest.fixture(scope="module")
def servers(fragile_servers):
    return fragile_servers


@pytest.fixture(scope="module")
def stack(fragile_stack):
    return fragile_stack


def replace(stack, query, worker, place):
    """Stop one worker as a deployment does; return when the one that came in its place has done some work."""
    old = stack.pids(worker)[place]
    os.kill(old, signal.SIGTERM)
    wait_until(lambda: query(SIGNED_OFF, pid=old)[0]["nodes"], within_s=ENDED_WITHIN_S)
    wait_until(lambda: len(pids := stack.pids(worker)) == 2 and old not in pids)
    wait_until(lambda: query(WORKED, pid=stack.pids(worker)[place])[0]["attempts"])


def test_a_worker_that_is_asked_to_end_loses_and_fails_nothing(stack, query, under_load):
    with under_load(wait_s=NO_LEASE_WAITED_FOR_S, slack_s=0, restarts=True):
        replace(stack, query, "worker-b", 0)


def test_a_rolling_restart_of_all_workers_loses_and_delays_nothing(stack, query, under_load):
    with under_load(wait_s=NO_LEASE_WAITED_FOR_S, slack_s=0, restarts=True):
        for worker in WORKERS:
            for place in (0, 1):
                replace(stack, query, worker, place)


# How late timers, retries and deadlines may be.
LATE_BY_S = 1
# Killed workers are back long before this, also on a slow machine.
AFTER_A_CRASH_S = 12
AFTER_A_STOP_S = 6
BEGIN = """
import flows
from tests.orders.timers import doze, give_up, stumble
for function in doze, stumble, give_up:
    flows.begin_rpc(f"{function.name}-%s", function, %s)
"""
WAITING = """
SELECT count(*) FILTER (WHERE phase = 'suspended') AS suspended, count(*) FILTER (WHERE failures = 1) AS failed
FROM flows_promise WHERE root_id LIKE %(ids)s
"""
DUE = "SELECT max(deadline_at) < clock_timestamp() AS due FROM flows_promise WHERE id = %(id)s"
VALUES = "SELECT id, value FROM flows_promise WHERE id LIKE %(ids)s AND parent_id IS NULL AND state = 'resolved'"
OUTCOMES = """
SELECT promise_id, array_agg(outcome ORDER BY fence) AS outcomes FROM flows_attempt
WHERE promise_id LIKE %(ids)s GROUP BY 1 ORDER BY 1
"""
# A timer and a deadline are due when they say so, a retry some time after the failure. Whoever waits for one of the
# first two is its caller; a retry is the call's own.
LATE = """
SELECT max(extract(epoch FROM a.started_at - due.at))::float8 AS late_by_s, count(*) FROM (
    SELECT parent_id AS waiter, deadline_at AS at FROM flows_promise
    WHERE id IN ('doze-' || %(name)s || '.0', 'give_up-' || %(name)s || '.0')
    UNION ALL
    SELECT promise_id, ended_at + %(after_s)s * interval '1 second' FROM flows_attempt
    WHERE outcome = 'failed' AND promise_id = 'stumble-' || %(name)s || '.0'
) AS due JOIN flows_attempt a ON a.promise_id = due.waiter AND a.started_at >= due.at
"""


@pytest.fixture(scope="module")
def timekeepers(fragile_servers, tmp_path_factory):
    """Workers with functions that wait for a time, two for each group, on a database and a broker of their own."""
    with psycopg.connect(fragile_servers.database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE timers")
    variables = {
        "DATABASE_URL": fragile_servers.database_url.rpartition("/")[0] + "/timers",
        "REDIS_URL": fragile_servers.redis_url.replace("/0", "/1"),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
    }
    procfile = ROOT / "tests" / "orders" / "Procfile"
    counts = {"worker-orders": 2, "worker-suppliers": 2}
    stack = Stack(variables, folder=tmp_path_factory.mktemp("timers"), counts=counts, procfile=procfile)
    stack.migrate()
    with stack:
        yield stack.wait_ready()


@pytest.fixture
def times(timekeepers):
    """Read the database of the functions that wait."""
    with psycopg.connect(timekeepers.environ["DATABASE_URL"], autocommit=True, row_factory=dict_row) as connection:
        yield lambda statement, **params: connection.execute(statement, params).fetchall()


@pytest.fixture
def begin_waiting(timekeepers, times, key):
    """Begin flows that wait for a timer, a retry and a deadline, all due then; return what their ids end with."""

    def begin_waiting(after_s):
        name = key()
        begun = timekeepers.manage("shell", "-c", BEGIN % (name, after_s))
        assert begun.returncode == 0, begun.stderr
        wait_until(lambda: times(WAITING, ids=f"%-{name}") == [{"suspended": 4, "failed": 1}], within_s=after_s / 2)
        return name

    return begin_waiting


def assert_fired_once(times, name):
    assert {row["id"]: row["value"] for row in times(VALUES, ids=f"%-{name}")} == {
        f"doze-{name}": "awake",
        f"stumble-{name}": "up again",
        f"give_up-{name}": "gave up",
    }
    assert {row["promise_id"]: row["outcomes"] for row in times(OUTCOMES, ids=f"%-{name}%")} == {
        f"doze-{name}": ["suspended", "resolved"],
        f"stumble-{name}": ["suspended", "resolved"],
        f"stumble-{name}.0": ["failed", "resolved"],
        f"give_up-{name}": ["suspended", "resolved"],
        f"give_up-{name}.0": ["suspended"],
    }


def test_timers_retries_and_deadlines_outlive_all_processes_and_fire_once_in_time(timekeepers, times, begin_waiting):
    name = begin_waiting(AFTER_A_CRASH_S)
    for worker in timekeepers.names:
        timekeepers.kill(worker)
    timekeepers.wait_ready()
    assert not times(DUE, id=f"give_up-{name}.0")[0]["due"]
    wait_until(lambda: len(times(VALUES, ids=f"%-{name}")) == 3, within_s=AFTER_A_CRASH_S + 2 * LATE_BY_S)
    assert_fired_once(times, name)
    [late] = times(LATE, name=name, after_s=AFTER_A_CRASH_S)
    assert late["count"] == 3
    assert late["late_by_s"] < LATE_BY_S


def test_what_was_due_while_nobody_lived_fires_once_when_somebody_does(timekeepers, times, begin_waiting):
    name = begin_waiting(AFTER_A_STOP_S)
    for worker in timekeepers.names:
        timekeepers.scale(worker, 0)
    wait_until(lambda: times(DUE, id=f"give_up-{name}.0")[0]["due"])
    for worker in timekeepers.names:
        timekeepers.scale(worker, 2)
    timekeepers.wait_ready()
    wait_until(lambda: len(times(VALUES, ids=f"%-{name}")) == 3, within_s=4 * LATE_BY_S)
    assert_fired_once(times, name)
