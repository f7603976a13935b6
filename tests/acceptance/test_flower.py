from functools import partial

import httpx

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
