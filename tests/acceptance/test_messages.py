"""A message is a hint: lost, doubled, late or forged, it changes nothing but time."""

import pytest
import redis

from tests.waiting import wait_until

PROMISE = "SELECT state, value, fence FROM flows_promise WHERE id = %(id)s"


@pytest.fixture
def stopped_service_c(stack):
    """Stop the worker of service-c; call the value to start it."""
    stack.scale("worker-c", 0)
    yield lambda: stack.scale("worker-c", 1)
    stack.scale("worker-c", 1)
    stack.wait_ready()


@pytest.fixture
def service_c(stack):
    """Four workers for service-c."""
    stack.scale("worker-c", 4)
    yield stack.wait_ready()
    stack.scale("worker-c", 1)


def drained(query, publisher, queue):
    """Whether nothing is left in a queue."""
    with publisher.connection_for_read() as connection:
        return connection.default_channel.client.llen(queue) == 0


def test_a_message_for_nothing_and_one_for_what_is_done_change_nothing(gateway, query, publisher, key):
    name = f"await-chain:{key()}"
    gateway.post("/await-chain", headers={"Idempotency-Key": name.partition(":")[2]})
    counts = "SELECT (SELECT count(*) FROM flows_promise) AS promises, (SELECT count(*) FROM flows_attempt) AS attempts"
    before = query(counts)
    for promise_id in ("nobody", name, f"{name}.0.0"):
        publisher.send_task("service-c.baz", task_id=promise_id, queue="service-c")
        publisher.send_task("service-a.foo", ["forged"], {"arguments": 1}, task_id=promise_id, queue="service-a")
    assert gateway.post("/await-chain", headers={"Idempotency-Key": key()}).json() == {"message": 3}
    wait_until(lambda: drained(query, publisher, "service-c") and drained(query, publisher, "service-a"))
    after = query(counts)
    assert (after[0]["promises"], after[0]["attempts"]) == (before[0]["promises"] + 3, before[0]["attempts"] + 5)


def test_the_same_message_fifty_times_to_four_workers_runs_once(gateway, query, publisher, service_c, key):
    name = f"await-chain:{key()}"
    gateway.post("/await-chain", headers={"Idempotency-Key": name.partition(":")[2], "Prefer": "respond-async"})
    for _ in range(50):
        publisher.send_task("service-c.baz", task_id=f"{name}.0.0", queue="service-c")
    wait_until(lambda: [row["state"] for row in query(PROMISE, id=name)] == ["resolved"])
    wait_until(lambda: drained(query, publisher, "service-c"))
    assert query(PROMISE, id=f"{name}.0.0") == [{"state": "resolved", "value": 1, "fence": 1}]
    assert query(PROMISE, id=name) == [{"state": "resolved", "value": 3, "fence": 2}]


def test_a_name_that_the_worker_does_not_know_leaves_the_promise_pending_with_the_reason(
    query, publisher, gateway, key
):
    name = f"unknown:{key()}"
    query(
        'INSERT INTO flows_promise (id, root_id, position, kind, "group", function, args, digest, state, phase, note,'
        " continuation, fence, failures, losses, sends, deadline_at, ready_at) VALUES (%(id)s, %(id)s, 0, 'root',"
        " 'service-c', 'not_deployed_yet', '[]', '', 'pending', 'ready', '', '', 0, 0, 0, 0, now() + '1 h', now())"
        " RETURNING id",
        id=name,
    )
    note = wait_until(lambda: gateway.get(f"/promises/{name}").json()["note"])
    assert "knows no function 'service-c.not_deployed_yet'" in note
    assert query(PROMISE, id=name)[0]["state"] == "pending"


def test_a_flush_of_redis_while_fifty_flows_are_in_flight_loses_none(gateway, servers, query, stopped_service_c, key):
    names = [key() for _ in range(50)]
    for name in names:
        headers = {"Idempotency-Key": name, "Prefer": "respond-async"}
        assert gateway.post("/await-chain", headers=headers).status_code == 202
    in_flight = (
        "SELECT count(*) FROM flows_promise WHERE root_id = ANY(%(ids)s) AND function = 'baz' AND state = 'pending'"
    )
    wait_until(lambda: query(in_flight, ids=[f"await-chain:{name}" for name in names]) == [{"count": 50}])
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushall()
    stopped_service_c()
    answers = [gateway.post("/await-chain", headers={"Idempotency-Key": name}) for name in names]
    assert {(answer.status_code, answer.json()["message"]) for answer in answers} == {(200, 3)}
