from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("route", "message"),
    [("await-chain", 3), ("fan-out-workflow", 3), ("detached-chain", "detached-chain started")],
)
def test_twenty_requests_at_once_are_one_flow_with_one_answer(gateway, query, route, message):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: gateway.post(f"/{route}"), range(20)))
    assert {(answer.status_code, answer.json()["message"]) for answer in answers} == {(200, message)}
    tree = "SELECT id, function, state FROM flows_promise WHERE id = %(id)s OR id LIKE %(below)s ORDER BY id"
    wait_until(
        lambda: (
            len(promises := query(tree, id=route, below=f"{route}.%")) == 3
            and {promise["state"] for promise in promises} == {"resolved"}
        )
    )
    ran = "SELECT promise_id FROM flows_attempt WHERE outcome = 'resolved' AND promise_id LIKE %(ids)s"
    assert len([row for row in query(ran, ids=f"{route}%") if ":" not in row["promise_id"]]) == 3


def test_service_f_prints_what_went_down_the_detached_chain(gateway, stack, key):
    before = stack.log("worker-f").read_text().splitlines().count("3")
    answer = gateway.post("/detached-chain", headers={"Idempotency-Key": key()})
    assert answer.json() == {"message": "detached-chain started"}
    wait_until(lambda: stack.log("worker-f").read_text().splitlines().count("3") == before + 1)


def test_each_attempt_is_announced_by_its_function(gateway, stack, key):
    gateway.post("/await-chain", headers={"Idempotency-Key": key()})
    for worker, function in (("worker-a", "foo"), ("worker-c", "baz")):
        assert f"running function {function}" in stack.log(worker).read_text()


def test_chains_hang_by_links_and_the_fan_out_by_a_chord(gateway, query, key):
    name = key()
    for route in ("await-chain", "fan-out-workflow"):
        gateway.post(f"/{route}", headers={"Idempotency-Key": name})
    continuations = query(
        "SELECT function, continuation FROM flows_promise WHERE id LIKE %(ids)s AND parent_id IS NOT NULL",
        ids=f"%:{name}.%",
    )
    by_function = {row["function"]: row["continuation"] for row in continuations}
    assert (by_function["bar"], by_function["baz"], by_function["rax"]) == ("link", "link", "chord")


def test_an_idempotency_key_gives_a_request_its_own_flow(gateway, key):
    name = key()
    assert gateway.post("/await-chain", headers={"Idempotency-Key": name}).json() == {"message": 3}
    promise = gateway.get(f"/promises/await-chain:{name}").json()
    assert (promise["state"], promise["value"], promise["function"]) == ("resolved", 3, "foo")
    assert promise["children"] == [f"await-chain:{name}.0"]
    assert [attempt["outcome"] for attempt in promise["attempts"]] == ["suspended", "resolved"]
