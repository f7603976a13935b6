"""A worker that waits takes a call without a message."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from celery import current_app
from django.db import connection
from kombu import Connection

import flows
from flows import canvas, pollers
from flows.domain.promise import Phase, State
from flows.engine.decision import Decision, Invocation, Resolved
from flows.engine.replay import Execution
from flows.store import claims, promises
from flows.store.claims import ReadyRef
from flows.worker import process
from flows.worker.drain import _Drain, drain
from flows.worker.ledger import ledger
from local.redis import Redis
from tests.integration.conftest import leaving
from tests.waiting import wait_until

BAZ = ReadyRef(id="p", group="service-c", function="baz")
BAR = ReadyRef(id="r", group="service-b", function="bar")
FOO = ReadyRef(id="q", group="service-c", function="foo")


@pytest.fixture
def waiting(client: Any) -> Callable[[], int]:
    """How many clients wait at a list of this broker: workers of other tests may wait at another of its server."""
    own = client.client_info()["db"]
    return lambda: sum(other["db"] == str(own) and "b" in other["flags"] for other in client.client_list())


@pytest.fixture
def in_thread(waiting: Callable[[], int]) -> Iterator[Callable[..., "Future[Any]"]]:
    """Run something in a thread that waits at the broker; return when it does."""
    with ThreadPoolExecutor(1) as pool:

        def start(function: Callable[..., Any], *args: Any, **kwargs: Any) -> "Future[Any]":
            future = pool.submit(leaving, function, *args, **kwargs)
            wait_until(lambda: waiting() == 1)
            return future

        yield start


def test_who_waits_has_the_call_and_no_message_is_sent(queue_length, in_thread):
    waits = in_thread(pollers.wait, ["service-c.foo", "service-c.baz"], 20)
    assert canvas.wake([BAZ]) == []
    assert waits.result(timeout=10) == ["service-c.baz"]
    assert queue_length("service-c") == 0


def test_of_many_who_wait_one_has_the_call(queue_length, in_thread, waiting):
    with ThreadPoolExecutor(3) as pool:
        waits = [pool.submit(leaving, pollers.wait, ["service-c.baz"], 20) for _ in range(3)]
        wait_until(lambda: waiting() == 3)
        for others in (2, 1, 0):
            assert canvas.wake([BAZ]) == []
            wait_until(lambda: waiting() == others)  # noqa: B023 - called before the next
        assert canvas.wake([BAZ]) == [BAZ]
        assert [wait.result() for wait in waits] == [["service-c.baz"]] * 3


def test_who_keeps_a_promise_open_is_asked_to_go_on_before_who_has_waited_longer(queue_length, in_thread, waiting):
    goes_on = BAZ._replace(was_suspended=True)
    longest = in_thread(pollers.wait, ["service-c.baz"], 20)
    with ThreadPoolExecutor(1) as pool:
        keeper = pool.submit(leaving, pollers.wait, ["service-c.baz"], 20, keeps=(BAZ.id, BAZ.task_name))
        wait_until(lambda: waiting() == 2)
        assert canvas.wake([goes_on]) == []
        assert keeper.result(timeout=10) == ["service-c.baz"]
    assert not longest.done()
    assert canvas.wake([goes_on]) == []
    assert longest.result(timeout=10) == ["service-c.baz"]
    assert canvas.wake([goes_on]) == [goes_on]
    assert queue_length("service-c") == 1


def test_who_waits_for_other_functions_is_left_alone(queue_length, in_thread, waiting):
    waits = in_thread(pollers.wait, ["service-c.foo"], 20)
    assert canvas.wake([BAZ]) == [BAZ]
    assert queue_length("service-c") == 1
    assert waiting() == 1
    assert canvas.wake([FOO]) == []
    assert waits.result(timeout=10) == ["service-c.foo"]


def test_who_begins_to_wait_a_moment_too_late_looks_once_more(queue_length):
    assert canvas.wake([BAZ]) == [BAZ]
    assert canvas.wake([BAZ]) == []
    assert pollers.wait(["service-c.baz"], 20) == ["service-c.baz"]
    assert pollers.wait(["service-c.baz"], 0.01) == []


def test_one_message_is_sent_until_a_worker_has_come(queue_length):
    assert canvas.wake([BAZ]) == [BAZ]
    assert canvas.wake([BAZ]) == []
    assert queue_length("service-c") == 1
    assert pollers.clear(["service-c.foo", "service-c.baz"]) is True
    assert canvas.wake([BAZ]) == [BAZ]
    assert queue_length("service-c") == 2


def test_a_message_that_nobody_comes_for_is_followed_by_another(queue_length):
    assert canvas.wake([BAZ]) == [BAZ]
    wait_until(lambda: canvas.wake([BAZ]) == [BAZ], within_s=5)
    assert queue_length("service-c") == 2


def test_who_loses_the_broker_while_it_waits_looks_once_more(queue_length, in_thread, client):
    names = ["service-c.baz", "service-a.foo"]
    waits = in_thread(pollers.wait, names, 20)
    client.client_kill_filter(_type="normal", skipme=True)
    assert waits.result(timeout=10) == names
    assert pollers.wait(["service-c.baz"], 20) == []


def test_a_wait_ends_in_time_with_a_redis_that_has_nothing_else_to_do(tmp_path, monkeypatch):
    with Redis(tmp_path) as redis:
        monkeypatch.setattr(pollers, "_idle", [])
        monkeypatch.setattr(current_app, "connection_for_write", lambda: Connection(redis.url))
        for name, value in (("dynamic-hz", "no"), ("hz", "1")):
            pollers._ask(("CONFIG", [], "SET", name, value))
        began = time.monotonic()
        assert [pollers.wait(["service-c.baz"], 0.1) for _ in range(5)] == [[]] * 5
        assert time.monotonic() - began < 2
        pollers.leave()


def test_a_connection_that_was_closed_while_nobody_used_it_is_replaced(queue_length, client):
    assert canvas.wake([BAZ]) == [BAZ]
    client.client_kill_filter(_type="normal", skipme=True)
    assert pollers.wait(["service-c.baz"], 20) == ["service-c.baz"]
    assert pollers.wait(["service-c.baz"], 0.01) == []
    assert canvas.wake([BAZ]) == []


def test_after_an_interruption_no_command_gets_the_answer_of_another(queue_length, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("redis.connection.AbstractConnection.read_response", interrupted)
        with pytest.raises(KeyboardInterrupt):
            canvas.wake([BAZ])
    assert pollers.wait(["service-c.foo"], 0.01) == []


def test_keys_have_the_prefix_of_the_broker(queue_length, client, monkeypatch):
    monkeypatch.setattr(pollers, "_idle", [])
    monkeypatch.setitem(current_app.conf.broker_transport_options, "global_keyprefix", "shop.")
    assert pollers.hand_over({"service-c.baz": None}) == pollers.HandedOver()
    names = (b"shop.flows.ready.service-c.baz", b"shop.flows.sent.service-c.baz")
    assert set(client.keys("*service-c.baz")) == set(names)
    assert pollers.wait(["service-c.baz"], 20) == ["service-c.baz"]
    pollers.leave()


def test_with_another_broker_nobody_waits(monkeypatch):
    monkeypatch.setattr(pollers, "_idle", [])
    monkeypatch.setattr(current_app, "connection_for_write", lambda: Connection("memory://"))
    assert pollers.hand_over({"service-c.baz": None}) == pollers.HandedOver()
    assert pollers.wait(["service-c.baz"], 20) == []


def test_a_message_that_comes_just_after_an_outage_stands_for_no_other(queue_length, monkeypatch):
    monkeypatch.setattr(pollers, "_away_until", time.monotonic() + 60)
    assert canvas.wake([BAZ]) == [BAZ]
    assert pollers.clear(["service-c.baz"]) is True
    assert canvas.wake([BAZ]) == [BAZ]


def test_who_was_handed_a_call_is_no_message_on_its_way(queue_length, in_thread):
    waits = in_thread(pollers.wait, ["service-c.baz"], 20)
    assert canvas.wake([BAZ]) == []
    assert waits.result(timeout=10) == ["service-c.baz"]
    assert canvas.wake([BAZ]) == [BAZ]


def test_who_calls_after_a_message_has_come_sends_another(worker, queue_length):
    flows.begin_rpc("p", "baz", target="service-c")
    current_app.tasks["service-c.baz"].apply(task_id="p")
    assert promises.get("p").state is State.RESOLVED
    flows.begin_rpc("q", "baz", target="service-c")
    assert queue_length("service-c") == 2


@pytest.fixture
def waiting_drain(
    worker: int, in_thread: Callable[..., "Future[Any]"], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], "Future[Any]"]:
    """Have a drain of a group wait for calls, for as long as it takes; it ends once it has run what came."""

    def drain_in_thread(group: str) -> None:
        drain(group, looks=False)
        process.retire()
        connection.close()

    def start(group: str) -> "Future[Any]":
        monkeypatch.setattr("flows.worker.drain.LOOK_S", 20)
        monkeypatch.setattr("flows.worker.drain.DRAIN_S", 60)
        drained = in_thread(drain_in_thread, group)
        monkeypatch.setattr("flows.worker.drain.LOOK_S", 0.05)
        return drained

    return start


def test_a_drain_that_waits_runs_what_comes_and_needs_no_message(waiting_drain, queue_length):
    drained = waiting_drain("service-c")
    flows.begin_rpc("p", "baz", target="service-c")
    drained.result(timeout=10)
    assert promises.get("p").state is State.RESOLVED
    assert queue_length("service-c") == 0


GROUPS = ("service-a", "service-b", "service-c")


@pytest.fixture
def shared(worker):
    """The node serves all groups of a chain."""
    process.become_node(worker, "node@test", GROUPS)
    return worker


@pytest.fixture
def messages(queue_length):
    """How many messages wait for each of the groups."""
    return lambda: [queue_length(group) for group in GROUPS]


def test_a_drain_that_waits_runs_a_chain_through_all_groups_of_its_node(waiting_drain, shared, messages):
    drained = waiting_drain("service-c")
    flows.begin_rpc("p", "foo", "foo", target="service-a")
    drained.result(timeout=20)
    assert promises.get("p").value == 3
    assert messages() == [0, 0, 0]


def test_one_message_is_enough_for_a_chain_through_all_groups_of_a_node(shared, messages, client):
    flows.begin_rpc("p", "foo", "foo", target="service-a")
    assert messages() == [1, 0, 0]
    client.delete("service-a")  # taken by who comes now
    current_app.tasks["service-a.foo"].apply(task_id="p")
    assert promises.get("p").value == 3
    assert messages() == [0, 0, 0]


def test_what_was_left_to_a_drain_is_sent_before_it_runs_something_else(shared, messages):
    flows.begin_rpc("p", "baz", target="service-c")
    drain("service-c", left=[BAR])
    assert promises.get("p").state is State.RESOLVED
    assert messages() == [0, 1, 1]


@pytest.mark.parametrize(("left", "sent"), [(BAR, [0, 1, 0]), (BAZ, [0, 0, 1])])
def test_what_was_left_to_a_drain_is_sent_if_that_ends_before(shared, messages, left, sent):
    process.stop_draining()
    drain("service-c", left=[left])
    assert messages() == sent


def test_a_drain_gives_way_to_a_message_now_and_then(shared, messages, monkeypatch):
    assert canvas.wake([BAZ]) == [BAZ]
    monkeypatch.setattr("flows.worker.drain.LOOK_S", 0)
    waits = _Drain("service-a", ())
    monkeypatch.setattr("flows.worker.drain.LOOK_S", 20)
    began = time.monotonic()
    waits.run(looks=False)
    assert time.monotonic() - began < 10
    assert messages() == [0, 0, 1]


def test_a_message_with_a_priority_is_one_that_waits(queue_length, client):
    assert pollers.has_messages(["service-c"]) is False
    client.lpush("service-c\x06\x169", "of priority 9")
    assert pollers.has_messages(["service-c"]) is True


def test_a_message_in_any_of_the_queues_is_one_that_waits(queue_length):
    assert canvas.wake([BAZ]) == [BAZ]
    assert pollers.has_messages(["service-a", "service-c"]) is True
    assert pollers.has_messages(["service-a", "service-b"]) is False


@pytest.mark.parametrize("url", ["memory://", "redis://127.0.0.1:1/"])
def test_who_cannot_ask_for_messages_takes_it_that_one_waits(queue_length, monkeypatch, url):
    assert pollers.has_messages(["service-c"]) is False
    monkeypatch.setattr(pollers, "_away_until", 0.0)
    monkeypatch.setattr(pollers, "_idle", [])
    monkeypatch.setattr(current_app, "connection_for_write", lambda: Connection(url))
    assert pollers.has_messages(["service-c"]) is True


def test_while_the_broker_is_away_nobody_asks_it_for_messages(queue_length, monkeypatch):
    monkeypatch.setattr(pollers, "_away_until", time.monotonic() + 60)
    assert pollers.has_messages(["service-c"]) is True


@pytest.fixture
def alone(worker: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node serves service-a alone, and its drains wait for a minute, but look around often."""
    process.become_node(worker, "node@test", ("service-a",))
    queues = current_app.amqp.queues
    monkeypatch.setattr(queues, "_consume_from", {"service-a": queues["service-a"]})
    monkeypatch.setattr("flows.worker.drain.LOOK_S", 0.02)
    monkeypatch.setattr("flows.worker.drain.LINGER_S", 60)


@pytest.fixture
def waits(alone: None, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each wait for calls was meant to take, of all drains of the node."""
    seconds_of = []
    wait = pollers.wait

    def noted(names: Sequence[str], seconds: float, keeps: tuple[str, str] | None = None) -> Sequence[str]:
        seconds_of.append(seconds)
        return wait(names, seconds, keeps)

    monkeypatch.setattr(pollers, "wait", noted)
    return seconds_of


def foo(client: Any) -> None:
    """Begin a flow and run it, with a drain that keeps it open; neither a message nor a token tells of it then."""
    flows.begin_rpc("p", "foo", "foo", target="service-a")
    client.delete("service-a", "flows.ready.service-a.foo")
    current_app.tasks["service-a.foo"].apply(task_id="p")


def test_a_function_that_is_kept_open_goes_on_without_a_message(
    waits, waiting, in_thread, messages, client, monkeypatch
):
    went_on = []
    go_on = Execution.go_on

    def noted(execution: Execution, invocation: Invocation) -> Decision:
        went_on.append(invocation.id)
        return go_on(execution, invocation)

    monkeypatch.setattr(Execution, "go_on", noted)
    drained = in_thread(foo, client)
    wait_until(lambda: len(waits) > 3)
    monkeypatch.setattr("flows.worker.drain.LOOK_S", 60)
    wait_until(lambda: waits[-1] == 60 and waiting())
    (child,), _ = claims.claim_ready("service-b", ["bar"], 1, process.holder())
    ledger().begin(child)
    monkeypatch.setattr("flows.worker.drain.LOOK_S", 0.02)
    monkeypatch.setattr("flows.worker.drain.LINGER_S", 0)
    ledger().finish(Resolved(value="2"), celery_continues=False)
    drained.result(timeout=10)
    assert promises.get("p").value == 3
    assert went_on == ["p"]
    assert messages() == [0, 1, 0]


def test_who_keeps_a_function_open_gives_way_to_a_message(waits, in_thread, client):
    drained = in_thread(foo, client)
    wait_until(lambda: len(waits) > 3)
    client.lpush("service-a", "an ordinary task")
    drained.result(timeout=10)
    assert promises.get("p").phase is Phase.SUSPENDED


def test_who_keeps_a_function_open_ends_with_its_node(waits, in_thread, client):
    drained = in_thread(foo, client)
    wait_until(lambda: len(waits) > 3)
    process.stop_draining()
    drained.result(timeout=10)
    assert promises.get("p").phase is Phase.SUSPENDED


def test_a_drain_that_waits_gives_way_to_a_message(waits, in_thread, client):
    drained = in_thread(lambda: drain("service-a", looks=False))
    wait_until(lambda: len(waits) > 3)
    client.lpush("service-a", "an ordinary task")
    drained.result(timeout=10)


def test_what_was_left_to_a_drain_is_sent_before_it_waits_for_long(waits, messages):
    drain("service-a", looks=False, left=[BAR])
    assert len(waits) == 1
    assert messages() == [0, 1, 0]


def test_a_drain_does_not_wait_for_ever(waits, client, monkeypatch):
    monkeypatch.setattr("flows.worker.drain.LINGER_S", 0)
    foo(client)
    assert promises.get("p").phase is Phase.SUSPENDED
    assert len(waits) == 1


def test_a_drain_leaves_groups_alone_whose_queues_its_node_consumes_no_more(waiting_drain, shared):
    process.set_served(["service-a", "service-c"])
    drained = waiting_drain("service-a")
    flows.begin_rpc("p", "foo", "foo", target="service-a")
    drained.result(timeout=20)
    assert (promises.get("p").phase, promises.get("p.0").phase) == (Phase.SUSPENDED, Phase.READY)
