import pytest

import flows
from flows.engine.registry import registry
from flows.store import promises, sql
from flows.worker.drain import drain


@pytest.fixture
def deploy(worker, monkeypatch):
    """Have the code of some versions, and no others, of service-c.baz."""

    def deploy(*versions):
        monkeypatch.setattr(registry, "_functions", dict(registry._functions))
        registry._functions["service-c", "baz"] = {}
        for version in versions:
            flows.durable(group="service-c", name="baz", version=version)(lambda ctx, version=version: version)

    return deploy


def outcome(promise_id):
    drain("service-c")
    return promises.get(promise_id).value


def test_a_new_call_takes_the_latest_version(deploy):
    deploy(1, 2)
    flows.begin_rpc("p", "baz", target="service-c")
    assert promises.get("p").version == 2
    assert outcome("p") == 2


def test_a_call_keeps_the_version_that_it_was_made_with(deploy):
    deploy(1)
    flows.begin_rpc("p", "baz", target="service-c")
    deploy(1, 2)
    flows.begin_rpc("p", "baz", target="service-c")
    assert outcome("p") == 1


def test_a_call_by_code_that_knows_no_version_takes_the_latest_of_its_worker(deploy):
    deploy(1, 2)
    flows.begin_rpc("p", "baz", target="service-c")
    sql.rows("UPDATE flows_promise SET version = NULL")
    assert outcome("p") == 2
    assert promises.get("p").version == 2


def test_a_version_that_nobody_here_has_waits_for_somebody_who_does(deploy):
    deploy(1, 2)
    flows.begin_rpc("p", "baz", target="service-c")
    deploy(1)
    assert outcome("p") is None
    waiting = promises.get("p")
    assert waiting.state == "pending"
    assert "service-c.baz has no version 2 here; it has: 1" in waiting.note
    assert sql.rows("SELECT failures FROM flows_promise") == [{"failures": 0}]
    deploy(2)
    assert flows.retry("p")
    assert outcome("p") == 2
