from datetime import timedelta

import pytest
from celery import current_app

import flows
from flows.conf import Settings
from flows.domain.promise import Kind
from flows.engine.decision import Failed, SetAside
from flows.store import nodes, outcomes, promises, sql
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, expire_lease, suspend

BOOM = {"type": "ValueError", "message": "boom", "traceback": "", "cause": None}


@pytest.fixture
def well(holder, queue_length):
    """A world in which nothing is wrong: a node that has just swept, and a broker."""
    nodes.take_sweep_turn(holder.node_id)


@pytest.fixture
def found(well, run):
    """What the doctor finds: kinds with their first example, and whether that is unhealthy."""

    def found():
        ran = run("doctor", "--json")
        assert ran.json["healthy"] is (ran.code == 0)
        findings = {each["kind"]: each for each in ran.json["findings"]}
        return {kind: (each["is_trouble"], (each["examples"] or [""])[0]) for kind, each in findings.items()}

    return found


def end(claim, decision):
    outcomes.commit([Outcome(claim=claim, decision=decision)])


def test_nothing_is_wrong(well, run):
    ran = run("doctor")
    assert (ran.code, ran.out) == (0, "Nothing is stuck.\n")


def test_work_without_workers(start, holder, found):
    start()
    expire_lease(holder)
    assert found() == {"no_nodes": (True, ""), "unserved": (True, "p")}


def test_what_was_set_aside_with_both_calls(start, claim, found):
    start()
    end(claim(), SetAside(note="recorded as a, now b"))
    assert found() == {"aside": (True, "p  recorded as a, now b")}


def test_functions_and_versions_that_nobody_has(start, found):
    start()
    promises.note("p", "node@test knows no function 'g.f'; deploy it, or cancel this promise")
    assert found()["no_code"] == (True, "p  node@test knows no function 'g.f'; deploy it, or cancel this promise")


def test_versions_that_this_code_has_not(found, holder):
    flows.begin_rpc("p", "foo", "foo", target="service-a")
    sql.rows("UPDATE flows_promise SET version = 7")
    assert "unknown_version" in found()


def test_what_waits_for_somebody_and_for_its_next_attempt_is_no_trouble(start, claim, found):
    start("p")
    parent = claim("p")
    suspend(parent, call(parent, 0, Kind.EXTERNAL, function="approval"))
    start("q")
    end(claim("q"), Failed(error=BOOM, exception=ValueError(), delay=timedelta(hours=1), failures=2))
    kinds = found()
    assert {kind: is_trouble for kind, (is_trouble, _) in kinds.items()} == {"external": False, "delayed": False}
    assert kinds["external"][1].startswith("p.0  approval, asked ")
    assert kinds["delayed"][1].endswith("ValueError: boom")


def test_what_kills_its_workers(start, claim, found):
    start()
    sql.rows("UPDATE flows_promise SET losses = 3")
    assert found() == {"losing": (True, "p  3 in a row")}


def test_calls_to_a_node_that_is_gone(start, found):
    start()
    sql.rows("UPDATE flows_promise SET addressee = 'gone@host'")
    assert found() == {"node_gone": (True, "p for g/gone@host")}


def test_a_claim_without_its_session_lock(start, claim, holder, found):
    start()
    claim()
    sql.rows("SELECT pg_advisory_unlock_shared(%(space)s, 1)", space=nodes.LOCK_SPACE + holder.node_id)
    sql.rows("UPDATE flows_promise SET claimed_at = now() - %(lease)s * 2", lease=Settings().LEASE)
    assert found() == {"unlocked_claims": (True, "p on node@test")}


def test_a_sweep_that_is_late(found):
    sql.rows("UPDATE flows_node SET swept_at = now() - interval '1 minute'")
    assert found() == {"stale_sweep": (True, "")}


def test_work_that_waits_although_somebody_is_there(start, found):
    start()
    sql.rows("UPDATE flows_promise SET ready_at = now() - interval '5 minutes'")
    assert found() == {"slow_group": (True, "p")}


def test_a_database_that_may_forget(found):
    sql.rows("SELECT set_config('synchronous_commit', 'off', false)")
    assert found() == {"not_durable": (True, "")}


def test_a_broker_that_is_away(found, monkeypatch):
    monkeypatch.setattr(current_app.conf, "broker_read_url", "redis://127.0.0.1:1/0")
    assert found()["broker_away"][0] is True
