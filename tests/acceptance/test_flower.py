import os
import subprocess
import sys
from functools import partial

import httpx
import pytest

from local.process import ROOT
from tests.waiting import wait_until


def test_flower_shows_each_promise_under_its_function_and_is_closed_to_strangers(stack, gateway, key):
    name = key()
    gateway.post("/await-chain", headers={"Idempotency-Key": name})
    user, _, password = stack.environ["FLOWER_BASIC_AUTH"].partition(":")
    with httpx.Client(base_url=stack.flower_url) as flower:
        assert flower.get("/tasks").status_code == 401
        flower.auth = (user, password)

        def succeeded(promise_id):
            answer = flower.get(f"/api/task/info/{promise_id}")
            return answer.status_code == 200 and answer.json()["state"] == "SUCCESS" and answer.json()

        for suffix, task, result in (
            ("", "service-a.foo", "3"),
            (".0", "service-b.bar", "2"),
            (".0.0", "service-c.baz", "1"),
        ):
            shown = wait_until(partial(succeeded, f"await-chain:{name}{suffix}"))
            assert (shown["name"], shown["result"]) == (task, result)
        task = flower.get(f"/task/await-chain:{name}.0").text
        assert f"{stack.gateway_url}/admin/flows/promise/await-chain_3A{name}.0/change/" in task


@pytest.mark.parametrize("login", [None, "", "user", "user:"])
def test_flower_does_not_start_without_a_password(login):
    environ = {"PATH": os.environ["PATH"], **({} if login is None else {"FLOWER_BASIC_AUTH": login})}
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "flower", "--port=0"]
    started = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert started.returncode != 0
    assert "Flower needs a login: set FLOWER_BASIC_AUTH=user:password" in started.stderr
