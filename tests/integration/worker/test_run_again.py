import pytest

import flows
from flows.engine.registry import registry
from flows.store import promises
from flows.worker.drain import drain


@pytest.fixture
def runs(worker, monkeypatch):
    """Which steps of service-c.baz have run: three, of which the second fails as long as ``fails`` is in here."""
    found: list[str] = ["fails"]
    monkeypatch.setattr(registry, "_functions", {key: dict(known) for key, known in registry._functions.items()})
    registry._functions["service-c", "baz"] = {}

    def step(name):
        if name == "second" and "fails" in found:
            raise ValueError("no")
        found.append(name)
        return len(found)

    @flows.durable(group="service-c", name="baz", retry=flows.Never())
    def baz(ctx: flows.Context) -> flows.Flow[list[int]]:
        done = []
        for name in ("first", "second", "third"):
            done.append((yield from ctx.run(step, name)))  # noqa: PERF401 - no yield from in a comprehension
        return done

    return found


def begin_and_fail():
    flows.begin_rpc("p", "baz", target="service-c")
    drain("service-c")
    assert promises.get("p").state == "rejected"


def test_a_flow_goes_on_from_a_step_with_what_came_before(runs):
    begin_and_fail()
    runs.remove("fails")
    handle = flows.run_again("p", "p-again", from_step=1)
    drain("service-c")
    assert runs == ["first", "second", "third"]
    assert handle.result(timeout=5) == [2, 2, 3]
    assert promises.get("p").state == "rejected"


def test_a_flow_runs_from_its_top(runs):
    begin_and_fail()
    runs.remove("fails")
    handle = flows.run_again("p", "p-again")
    drain("service-c")
    assert runs == ["first", "first", "second", "third"]
    assert handle.result(timeout=5) == [2, 3, 4]


def test_a_flow_whose_last_call_is_before_the_step_only_returns(runs):
    runs.remove("fails")
    flows.begin_rpc("p", "baz", target="service-c")
    drain("service-c")
    handle = flows.run_again("p", "q", from_step=99)
    drain("service-c")
    assert handle.result(timeout=5) == flows.Handle[list[int]]("p").result(timeout=5)
    assert runs == ["first", "second", "third"]
