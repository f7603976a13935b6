import os
import subprocess
import sys
from functools import partial

import httpx
import pytest

from local.process import ROOT
from tests.waiting import wait_until


@pytest.fixture
def flower(stack):
    """A client of Flower that has not logged in."""
    with httpx.Client(base_url=stack.flower_url) as client:
        yield client


@pytest.fixture
def succeeded(stack, flower):
    """Log in; wait until Flower says that a promise has succeeded, and return what it shows."""
    user, _, password = stack.environ["FLOWER_BASIC_AUTH"].partition(":")
    flower.auth = (user, password)

    def shown(promise_id):
        answer = flower.get(f"/api/task/info/{promise_id}")
        return answer.status_code == 200 and answer.json()["state"] == "SUCCESS" and answer.json()

    return lambda promise_id: wait_until(partial(shown, promise_id))


def test_flower_is_closed_to_strangers(flower):
    assert flower.get("/tasks").status_code == 401


def test_flower_shows_each_promise_under_its_function(stack, gateway, flower, succeeded, key):
    name = key()
    gateway.post("/await-chain", headers={"Idempotency-Key": name})
    for suffix, task, result in (
        ("", "service-a.foo", "3"),
        (".0", "service-b.bar", "2"),
        (".0.0", "service-c.baz", "1"),
    ):
        shown = succeeded(f"await-chain:{name}{suffix}")
        assert (shown["name"], shown["result"]) == (task, result)
    task = flower.get(f"/task/await-chain:{name}.0").text
    assert f"{stack.gateway_url}/admin/flows/promise/await-chain_3A{name}.0/change/" in task


def test_flower_shows_also_what_a_worker_runs_first(stack, gateway, succeeded, key):
    stack.scale("worker-b", 0)
    stack.scale("worker-b", 2)
    names = [key() for _ in range(3)]
    for name in names:
        gateway.post("/await-chain", headers={"Idempotency-Key": name})
    for name in names:
        assert succeeded(f"await-chain:{name}.0")["result"] == "2"


@pytest.mark.parametrize("login", [None, "", "user", "user:"])
def test_flower_does_not_start_without_a_password(login):
    environ = {"PATH": os.environ["PATH"], **({} if login is None else {"FLOWER_BASIC_AUTH": login})}
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "flower", "--port=0"]
    started = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert started.returncode != 0
    assert "Flower needs a login: set FLOWER_BASIC_AUTH=user:password" in started.stderr
