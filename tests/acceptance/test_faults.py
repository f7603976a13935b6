import os
import signal
import threading
import time

import httpx
import psutil
import pytest
import redis

from local.stack import Stack
from tests.waiting import wait_until

RUNNING = """
SELECT p.fence, p.session >> 9 AS process, n.pid FROM flows_promise p JOIN flows_node n ON n.id = p.node_id
WHERE p.id = %(id)s AND p.phase = 'claimed' AND p.fence >= %(fence)s
"""
# From the beat after which the node was frozen, about, to the attempt that took over.
TAKEN_OVER = """
SELECT extract(epoch FROM next.started_at - frozen.started_at)::float8 AS after_s FROM flows_attempt frozen
JOIN flows_attempt next ON next.promise_id = frozen.promise_id AND next.fence = frozen.fence + 1
WHERE frozen.promise_id = %(id)s AND frozen.fence = %(fence)s
"""
# The lease of 10 s, and a sweep.
FROZEN_WITHIN_S = 12
FLOW = """
SELECT id, state, phase, fence, value, (SELECT count(*) FROM flows_attempt a WHERE a.promise_id = p.id) AS attempts
FROM flows_promise p WHERE root_id = %(id)s ORDER BY id
"""
OUTCOMES = "SELECT outcome FROM flows_attempt WHERE promise_id = %(id)s ORDER BY fence"


@pytest.fixture
def slow_bar(stack, servers, tmp_path):
    """Two workers for service-b that are slow enough to be killed in time; the others do not serve it."""
    stack.scale("worker-b", 0)
    variables = {**servers.environ, "FLOWS_SLOW_MOTION_S": "0.7"}
    with Stack(variables, folder=tmp_path, only={"worker-b"}, counts={"worker-b": 2}, restarts=False) as slow:
        yield slow.wait_ready()
    stack.scale("worker-b", 2)


@pytest.mark.parametrize("victim", ["pid", "process"], ids=["node", "pool-process"])
@pytest.mark.parametrize("attempt", [1, 2], ids=["before-baz", "after-baz"])
def test_a_flow_outlives_the_process_that_runs_it(gateway, query, slow_bar, key, victim, attempt):
    name = key()
    headers = {"Idempotency-Key": name}
    gateway.post("/await-chain", headers=headers | {"Prefer": "respond-async"})
    bar = f"await-chain:{name}.0"
    running = wait_until(lambda: query(RUNNING, id=bar, fence=attempt))
    os.kill(running[0][victim], signal.SIGKILL)
    wait_until(lambda: query(RUNNING, id=bar, fence=attempt + 1), within_s=5)
    assert gateway.post("/await-chain", headers=headers).json() == {"message": 3}
    outcomes = ["suspended", "resolved"]
    outcomes.insert(attempt - 1, "lost")
    assert [row["outcome"] for row in query(OUTCOMES, id=bar)] == outcomes
    assert [row["outcome"] for row in query(OUTCOMES, id=f"await-chain:{name}")] == ["suspended", "resolved"]
    assert [row["outcome"] for row in query(OUTCOMES, id=f"{bar}.0")] == ["resolved"]


def test_a_flow_goes_on_without_the_gateway_that_started_it(gateway, query, stack, slow_bar, key):
    headers = {"Idempotency-Key": key()}
    gateway.post("/await-chain", headers=headers | {"Prefer": "respond-async"})
    stack.kill("gateway")
    state = "SELECT state FROM flows_promise WHERE id = %(id)s"
    root = f"await-chain:{headers['Idempotency-Key']}"
    wait_until(lambda: query(state, id=root) == [{"state": "resolved"}])
    stack.wait_ready()
    assert gateway.post("/await-chain", headers=headers).json() == {"message": 3}


@pytest.fixture
def published(servers):
    """Collect what is sent to queues from now on."""
    commands = []
    with redis.Redis.from_url(servers.redis_url) as client, client.monitor() as monitor:

        def listen():
            for command in monitor.listen():
                if "LPUSH" in command["command"]:
                    commands.append(command["command"])
                if command["command"] == "PING enough":
                    return

        listener = threading.Thread(target=listen)
        listener.start()
        yield commands
        with redis.Redis.from_url(servers.redis_url) as other:
            other.execute_command("PING", "enough")
        listener.join()


@pytest.mark.parametrize("attempt", [1, 2], ids=["before-baz", "after-baz"])
def test_a_flow_outlives_a_frozen_node_which_changes_nothing_when_it_is_back(
    gateway, query, slow_bar, key, published, attempt
):
    name = key()
    root, bar = f"await-chain:{name}", f"await-chain:{name}.0"
    headers = {"Idempotency-Key": name}
    gateway.post("/await-chain", headers=headers | {"Prefer": "respond-async"})
    [running] = wait_until(lambda: query(RUNNING, id=bar, fence=attempt))
    node = psutil.Process(running["pid"])
    processes = [*node.children(recursive=True), node]
    for process in processes:
        process.suspend()
    frozen_at = time.monotonic()
    try:
        assert query(RUNNING, id=bar, fence=attempt) == [running]
        answer = gateway.post("/await-chain", headers=headers | {"Prefer": "wait=20"})
        assert (answer.status_code, answer.json()) == (httpx.codes.OK, {"message": 3})
        # One more attempt of bar after the one that took over, 0.7 s each, and the rest of the chain.
        assert time.monotonic() - frozen_at < FROZEN_WITHIN_S + 2
        [taken_over] = query(TAKEN_OVER, id=bar, fence=attempt)
        assert taken_over["after_s"] < FROZEN_WITHIN_S
        outcomes = ["suspended", "resolved"]
        outcomes.insert(attempt - 1, "lost")
        assert [row["outcome"] for row in query(OUTCOMES, id=bar)] == outcomes
        before = query(FLOW, id=root)
        published.clear()
    finally:
        for process in processes:
            process.resume()
    wait_until(lambda: "fenced" in [row["outcome"] for row in query(OUTCOMES, id=bar)], within_s=10)
    wait_until(lambda: any(f"promise {bar} fenced" in log.read_text() for log in slow_bar.logs().values()), within_s=5)
    outcomes[attempt - 1] = "fenced"
    assert [row["outcome"] for row in query(OUTCOMES, id=bar)] == outcomes
    assert query(FLOW, id=root) == before
    assert gateway.post("/await-chain", headers=headers).json() == {"message": 3}
    assert [command for command in published if root in command] == []
