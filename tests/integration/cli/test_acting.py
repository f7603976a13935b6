import pytest

import flows
from flows.domain.promise import Kind
from flows.engine.decision import SetAside
from flows.store import outcomes, promises
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, resolve, suspend


@pytest.fixture
def approval(start, claim):
    start()
    parent = claim()
    suspend(parent, call(parent, 0, Kind.EXTERNAL, function="approval"))
    return "p.0"


def test_an_external_promise_is_resolved_once(approval, run):
    assert run("resolve", approval, '{"by": "me"}').code == 0
    assert promises.get(approval).value == {"by": "me"}
    again = run("resolve", approval, '{"by": "me"}')
    assert (again.code, again.out) == (1, "p.0: was resolved with this outcome before\n")
    assert run("resolve", approval, "7").code == 1


def test_a_value_that_is_not_json_is_wrong_usage(approval, run):
    ran = run("resolve", approval, "yes")
    assert ran.code == 2
    assert "a text needs its quotes" in ran.err
    assert promises.get(approval).state == "pending"


def test_an_external_promise_is_rejected_with_a_reason(approval, run):
    assert run("reject", approval, "too dear").code == 0
    assert (promises.get(approval).error or {})["message"] == "too dear"


def test_several_are_acted_upon_whatever_becomes_of_the_others(start, run):
    start("a")
    start("b")
    ran = run("cancel", "a", "nobody", "b", "--json")
    assert [(each["id"], each["done"]) for each in ran.json] == [("a", True), ("nobody", False), ("b", True)]
    assert ran.code == 1
    assert run("cancel", "a").code == 1


def test_what_was_set_aside_is_retried(start, claim, run):
    start()
    outcomes.commit([Outcome(claim=claim(), decision=SetAside(note="changed"))])
    assert run("retry", "p").code == 0
    assert run("retry", "p").code == 1


def test_a_claim_is_released(start, claim, run):
    start()
    claim()
    assert run("release", "p").out == "p: released, ready for others\n"
    assert run("release", "p").code == 1


def test_a_flow_is_run_again(start, run):
    start()
    assert run("run-again", "p", "q", "--from-step", "2", "--json").json == [{"id": "p", "done": True, "new_id": "q"}]
    assert flows.get("q").function == "f"
    assert run("run-again", "p", "q").code == 1
    assert run("run-again", "p", "no spaces").code == 2


@pytest.fixture
def three(start, claim):
    for promise_id in ("a", "b", "c"):
        start(promise_id)
        resolve(claim(promise_id))


def test_old_flows_are_counted_and_then_purged(three, run):
    assert run("purge", "--older-than", "1d").out == "no flow is that old\n"
    assert run("purge", "--older-than", "0s", "--dry-run").out == "3 flows would be deleted\n"
    assert run("purge", "--older-than", "0s", "--state", "canceled").code == 0
    ran = run("purge", "--older-than", "0s", "--batch", "2", "--json")
    assert (ran.json, ran.code) == ({"flows": 3, "promises": 3}, 0)


def test_one_flow_is_purged_by_its_id_if_it_has_ended(three, start, run):
    start("pending")
    assert run("purge", "pending").code == 1
    assert run("purge", "a").out == "deleted 1 flow, 1 promise in all\n"
    assert run("purge", "a").code == 1


@pytest.mark.parametrize(
    "args",
    [[], ["a", "--older-than", "1d"], ["a", "--dry-run"], ["--older-than", "30"], ["--older-than", "1y"]],
    ids=str,
)
def test_a_purge_that_is_not_clear_is_wrong_usage(three, run, args):
    assert run("purge", *args).code == 2
    assert run("list").code == 0
