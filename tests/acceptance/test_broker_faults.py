"""Redis dies, forgets, hangs, or is full, and messages are garbage: no work is lost, no worker is."""

import json
import time

import httpx
import pytest
import redis

from tests.waiting import wait_until

AWAY_S = 5
# A start is committed and answered, whatever Redis does.
START_WITHIN_S = 1
WAIT_S = 3

LAST_ATTEMPT = "SELECT FROM flows_promise WHERE id = %(id)s AND phase = 'claimed' AND fence = 2"


@pytest.fixture(scope="module")
def servers(fragile_servers):
    return fragile_servers


@pytest.fixture(scope="module")
def stack(fragile_stack):
    return fragile_stack


@pytest.fixture
def client(servers):
    with redis.Redis.from_url(servers.redis_url) as client:
        yield client


def assert_starts_are_answered(gateway, key):
    """While Redis is away: a start is answered at once, and one who waits, when the wait is over."""
    began = time.monotonic()
    answer = gateway.post("/await-chain", headers={"Idempotency-Key": key(), "Prefer": "respond-async"})
    started = time.monotonic()
    assert answer.status_code == httpx.codes.ACCEPTED
    assert started - began < START_WITHIN_S
    answer = gateway.post("/await-chain", headers={"Idempotency-Key": key(), "Prefer": f"wait={WAIT_S}"})
    assert answer.status_code in (httpx.codes.OK, httpx.codes.ACCEPTED)
    assert time.monotonic() - started < WAIT_S + START_WITHIN_S


def test_redis_killed_and_restarted_with_its_data(servers, under_load, is_back):
    with under_load():
        servers.redis.kill()
        servers.redis.start()
        is_back()


def test_redis_restarted_empty(servers, under_load, is_back):
    with under_load():
        servers.redis.kill()
        servers.redis.forget()
        servers.redis.start()
        is_back()


def test_redis_flushed(client, under_load, is_back):
    with under_load():
        client.flushall()
        is_back()


def test_redis_away(servers, gateway, key, under_load, is_back):
    with under_load():
        servers.redis.kill()
        away_until = time.monotonic() + AWAY_S
        try:
            assert_starts_are_answered(gateway, key)
            time.sleep(max(0, away_until - time.monotonic()))
        finally:
            servers.redis.start()
        is_back()


def test_redis_frozen(servers, gateway, key, under_load, is_back):
    with under_load():
        servers.redis.freeze()
        away_until = time.monotonic() + AWAY_S
        try:
            assert_starts_are_answered(gateway, key)
            time.sleep(max(0, away_until - time.monotonic()))
        finally:
            servers.redis.thaw()
        is_back()


def test_redis_out_of_memory(client, gateway, key, under_load, is_back):
    with under_load():
        client.config_set("maxmemory", 1)
        try:
            assert_starts_are_answered(gateway, key)
        finally:
            client.config_set("maxmemory", 0)
        is_back()


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_connections_to_redis_killed(client, under_load, is_back, kind):
    with under_load():
        for _ in range(2):
            client.client_kill_filter(_type=kind, skipme=True)
            is_back()


def test_a_worker_that_could_not_acknowledge_takes_work_again(servers, gateway, query, key, under_load):
    """The last attempt of a chain sends nothing: its acknowledgement is what meets the fault."""
    name = key()
    gateway.post("/await-chain", headers={"Idempotency-Key": name, "Prefer": "respond-async"})
    wait_until(lambda: query(LAST_ATTEMPT, id=f"await-chain:{name}"))
    servers.redis.freeze()
    time.sleep(AWAY_S)
    servers.redis.thaw()
    with under_load():
        pass


def envelope(**changes):
    headers = {"lang": "py", "task": "service-b.bar", "id": "nobody", "argsrepr": "()", "kwargsrepr": "{}"}
    whole = {
        "body": "W1tdLCB7fSwge31d",  # [[], {}, {}]
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "correlation_id": "nobody",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "service-b"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "0",
        },
    }
    return json.dumps(whole | changes)


CHORD: dict[str, object] = {
    "task": "nobody.knows",
    "args": [],
    "kwargs": {},
    "options": {"task_id": "nobody"},
    "subtask_type": None,
}
GARBAGE = {
    "no JSON": b"\x80\x04garbage",
    "JSON of another shape": "[1, 2]",
    "no envelope": "{}",
    "no headers": envelope(headers={}),
    "headers of another shape": envelope(headers=["task", "id"]),
    "no JSON in its body": envelope(body="Z2FyYmFnZQ=="),
    "no base64 in its body": envelope(body="\x00"),
    "arguments of another shape": envelope(body="MQ=="),
    "a pickle": envelope(**{"content-type": "application/x-python-serialize"}),
    "an unknown task": envelope(headers={"lang": "py", "task": "service-b.nobody", "id": "nobody"}),
    "an unknown task in a chord": envelope(
        headers={"lang": "py", "task": "service-b.nobody", "id": "nobody", "group": "g", "group_index": 0},
        body="W1tdLCB7fSwge31d",
    ),
    "a chord with an unknown body": envelope(headers={"lang": "py", "task": "service-b.bar", "id": "nobody",
        "group": "g", "chord": CHORD}),
}  # fmt: skip


@pytest.fixture
def no_garbage_left(client):
    yield
    client.flushall()


@pytest.mark.usefixtures("no_garbage_left")
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_a_queue_ends_no_worker(client, stack, is_back, garbage):
    pids = stack.pids("worker-b")
    for _ in range(4):
        client.lpush("service-b", garbage)
    wait_until(lambda: client.llen("service-b") == 0, within_s=5)
    is_back()
    assert stack.pids("worker-b") == pids
