import os
import signal

import pytest

from local.stack import Stack
from tests.waiting import wait_until

RUNNING = """
SELECT p.fence, p.session >> 9 AS process, n.pid FROM flows_promise p JOIN flows_node n ON n.id = p.node_id
WHERE p.id = %(id)s AND p.phase = 'claimed' AND p.fence >= %(fence)s
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
