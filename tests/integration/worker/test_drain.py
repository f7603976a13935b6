import time
from types import SimpleNamespace

import pytest
from celery import current_app, signals
from django.db import OperationalError

import flows
from flows import canvas
from flows.store import claims, promises, sql, sweeps
from flows.store.claims import ReadyRef
from flows.worker import drain as drains
from flows.worker import process
from flows.worker.attempts import run_attempt
from flows.worker.drain import Pace, arrived, attended, drain, wake_if_slow


@pytest.fixture
def started(worker):
    ids = [f"p{number}" for number in range(30)]
    for promise_id in ids:
        flows.begin_rpc(promise_id, "baz", target="service-c")
    return ids


def states(ids):
    return {promise.state for promise in promises.get_many(ids)}


def test_a_drain_runs_all_that_is_ready_and_holds_nothing(started):
    drain("service-c")
    assert states(started) == {"resolved"}
    assert sql.rows("SELECT count(*) FROM flows_attempt WHERE outcome = 'resolved'") == [{"count": 30}]
    assert sweeps.recover().ready == []


def test_a_drain_shares_its_commits(started):
    with sql.connection().cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT xmin::text) FROM flows_promise WHERE id = ANY(%s)", [started])
        assert cursor.fetchone() == (30,)
        drain("service-c")
        cursor.execute("SELECT count(DISTINCT xmin::text) FROM flows_promise WHERE id = ANY(%s)", [started])
        (commits,) = cursor.fetchone()
    assert commits <= 15


def test_what_a_drain_has_finished_is_written_if_it_cannot_claim_more(started, monkeypatch):
    claim_ready = claims.claim_ready
    claimed: list[tuple[list[claims.Claim], ReadyRef | None]] = []

    def claim_one_and_fail(*args):
        if claimed:
            raise OperationalError("away")
        claimed.append(claim_ready(*args))
        return claimed[0]

    monkeypatch.setattr(claims, "claim_ready", claim_one_and_fail)
    with pytest.raises(OperationalError):
        drain("service-c")
    ((taken, following),) = claimed
    assert following is not None
    assert states([claim.invocation.id for claim in taken]) == {"resolved"}


class TestPace:
    def test_one_is_claimed_until_a_duration_is_known(self):
        assert Pace().batch_size() == 1

    def test_a_batch_counts_by_its_mean(self):
        pace = Pace()
        pace.measured([0.0001] * 49 + [0.005])
        assert pace.batch_size() == int(drains.BATCH_S / 0.000198)

    def test_slower_counts_at_once_and_faster_little_by_little(self):
        pace = Pace()
        sizes = []
        for seconds in (0.001, 0.005, 0.001, 0.001):
            pace.measured([seconds])
            sizes.append(pace.batch_size())
        assert sizes == [10, 2, 2, 2]
        pace.measured([0.001] * 50)
        assert pace.batch_size() == 9


def test_a_drain_wakes_one_more_worker_if_more_is_ready(started, queue_length):
    before = queue_length("service-c")
    arrived("service-c")
    drain("service-c")
    assert queue_length("service-c") == before + 1


def test_a_drain_sends_no_message_beside_one_that_is_on_its_way(started, queue_length):
    before = queue_length("service-c")
    drain("service-c")
    assert queue_length("service-c") == before


@pytest.mark.parametrize(("seconds", "messages"), [(0.001, 1), (0.05, 2)])
def test_of_slow_calls_a_drain_wakes_two_more_workers(started, queue_length, seconds, messages):
    with current_app.connection_for_write() as connection:
        connection.default_channel.queue_purge("service-c")  # type: ignore[attr-defined]  # missing from the stubs
    drains._pace("service-c").measured([seconds])
    arrived("service-c")
    drain("service-c")
    assert queue_length("service-c") == messages


def test_beside_a_message_that_waits_a_drain_of_slow_calls_wakes_one(started, queue_length):
    before = queue_length("service-c")
    drains._pace("service-c").measured([0.05])
    arrived("service-c")
    drain("service-c")
    assert before > 0
    assert queue_length("service-c") == before + 1


def test_of_calls_to_one_node_a_drain_sends_one_message(worker, monkeypatch):
    sent: list[ReadyRef] = []
    monkeypatch.setattr(canvas, "send", sent.extend)
    ready = ReadyRef(id="p", group="service-c", function="baz", addressee="node@test")
    drains._wake(ready)
    assert sent == [ready]


class Message:
    """What Celery's state knows of a message in hand."""

    def __init__(self, task_name):
        self.task = current_app.tasks[task_name]


@pytest.fixture
def serving(monkeypatch):
    """Say which groups this node serves."""

    def serve(*groups):
        monkeypatch.setattr(process, "_groups", groups)
        process.set_served(groups)

    return serve


@pytest.fixture
def in_hand(queue_length, serving, monkeypatch):
    """Make Celery's state say that these messages are in hand, and one more of the group's waits in the queue."""
    serving("service-c")
    canvas.send([ReadyRef(id="p", group="service-c", function="baz")])
    return lambda *messages: monkeypatch.setattr("celery.worker.state.active_requests", set(messages))


def test_where_every_slot_drains_a_group_and_a_message_waits_its_tasks_need_no_other(in_hand, client):
    in_hand(Message("service-c.baz"))
    assert attended(slots=1) == ["service-c.baz"]
    client.delete("service-c")
    assert attended(slots=1) == []


def test_a_slot_that_drains_one_group_of_its_node_attends_to_the_others(in_hand, serving):
    serving("service-a", "service-b", "service-c")
    in_hand(Message("service-a.foo"))
    assert attended(slots=1) == ["service-c.baz"]


def test_where_a_slot_is_free_or_does_something_else_messages_are_sent(in_hand):
    in_hand(Message("service-c.baz"))
    assert attended(slots=2) == []
    in_hand(Message("service-c.baz"), Message("celery.backend_cleanup"))
    assert attended(slots=2) == []
    in_hand(Message("service-c.baz"), Message("service-b.bar"))
    assert attended(slots=2) == []


def test_a_function_that_is_not_drained_needs_each_of_its_messages(in_hand, monkeypatch):
    in_hand(Message("service-c.baz"))
    monkeypatch.setattr(canvas, "is_drainable", lambda function: False)
    assert attended(slots=1) == []


def test_a_broker_that_is_away_attends_to_nothing(in_hand, monkeypatch):
    in_hand(Message("service-c.baz"))
    monkeypatch.setattr(current_app.conf, "broker_read_url", "redis://127.0.0.1:1/0")
    assert attended(slots=1) == []


@pytest.mark.parametrize(("duration_s", "messages"), [(0.05, 1), (0.0001, 0)])
def test_one_more_worker_is_woken_before_an_attempt_that_takes_long(
    started, queue_length, monkeypatch, duration_s, messages
):
    pace = Pace()
    pace.measured([duration_s])
    monkeypatch.setitem(drains._paces, "service-c", pace)
    before, sent = queue_length("service-c"), []

    def attempt(claim, ledger):
        sent.append(queue_length("service-c") - before)
        return run_attempt(claim, ledger)

    monkeypatch.setattr("flows.worker.task.run_attempt", attempt)
    current_app.tasks["service-c.baz"].apply(task_id="p0")
    assert sent == [messages]


class TestGathering:
    @pytest.fixture
    def pace(self):
        pace = Pace()
        pace.measured([0.0001])
        return pace

    def gathers_for(self, pace, busy_s, waited_s):
        """Return the answer after many times the same."""
        for _ in range(50):
            gathers_s = pace.gathers_for(busy_s, waited_s)
        return gathers_s

    @pytest.mark.parametrize(("busy_s", "waited_s"), [(0.002, 0.0001), (0.004, 0)])
    def test_calls_that_come_faster_than_they_are_run_gather_for_as_long_as_that_took(self, pace, busy_s, waited_s):
        assert self.gathers_for(pace, busy_s, waited_s) == busy_s

    @pytest.mark.parametrize(("busy_s", "waited_s"), [(0.002, 0.002), (0.002, 0.0005), (0.0001, 0.02)])
    def test_calls_that_come_one_after_another_do_not_gather(self, pace, busy_s, waited_s):
        assert self.gathers_for(pace, busy_s, waited_s) == 0

    def test_none_gather_for_longer_than_a_batch_may_take(self, pace):
        assert self.gathers_for(pace, 0.1, 0) == drains.BATCH_S

    def test_none_gather_where_an_attempt_fills_a_batch(self, pace):
        pace.measured([0.05])
        assert self.gathers_for(pace, 0.05, 0) == 0

    def test_one_call_that_comes_at_once_says_nothing(self, pace):
        self.gathers_for(pace, 0.002, 0.01)
        assert pace.gathers_for(0.002, 0) == 0

    def test_what_comes_while_calls_gather_is_claimed_with_them(self, worker, monkeypatch, pace):
        slept, sizes, claim_ready = [], [], claims.claim_ready

        def sleep(seconds):
            slept.append(seconds)
            if len(slept) == 1:
                flows.begin_rpc("second", "baz", target="service-c")

        def claim(*args):
            claimed, following = claim_ready(*args)
            sizes.append(len(claimed))
            return claimed, following

        monkeypatch.setattr(drains, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
        monkeypatch.setattr(claims, "claim_ready", claim)
        monkeypatch.setattr(pace, "gathers_for", lambda *_: 0.005)
        monkeypatch.setitem(drains._paces, "service-c", pace)
        flows.begin_rpc("first", "baz", target="service-c")
        drain("service-c", looks=False)
        assert slept[0] == 0.005
        assert sizes[0] == 2
        assert states(["first", "second"]) == {"resolved"}

    def test_once_fewer_come_they_gather_no_more(self, pace):
        self.gathers_for(pace, 0.002, 0)
        assert pace.gathers_for(0.002, 0.005) == 0


def test_another_worker_is_woken_only_for_what_is_drained(worker, monkeypatch):
    woken: list[ReadyRef] = []
    monkeypatch.setattr(canvas, "wake", woken.extend)
    monkeypatch.setattr(canvas, "wake_another", woken.append)
    ready = ReadyRef(id="p", group="service-c", function="baz")
    for each in (ready, ready._replace(function="unknown_here"), ready._replace(addressee="node@test")):
        wake_if_slow(each)
    assert woken == [ready, ready]


def test_each_drained_attempt_is_a_task_to_celerys_signals(started):
    seen = []

    def on_prerun(task_id, task, **_):
        seen.append((task_id, task.name, task.request.id, task.request.delivery_info["routing_key"]))

    signals.task_prerun.connect(on_prerun)
    try:
        drain("service-c")
    finally:
        signals.task_prerun.disconnect(on_prerun)
    assert sorted(seen) == sorted((promise_id, "service-c.baz", promise_id, "service-c") for promise_id in started)


def test_a_node_that_is_stopping_begins_nothing(started):
    process.stop_draining()
    drain("service-c")
    assert states(started) == {"pending"}
