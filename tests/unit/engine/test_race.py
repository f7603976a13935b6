import pytest

from flows.domain.promise import Kind, State
from flows.engine.decision import Rejected, Resolved, SetAside, Suspended
from tests.unit.engine.harness import BOOM, Flow


def race(ctx, **options):
    future = yield from ctx.rfi("slow")
    return (yield from ctx.race(future, ctx.rpc("fast"), ctx.sleep(60), **options))


def test_a_race_waits_for_the_first():
    flow = Flow(race)
    assert flow.attempt() == Suspended(awaits=("p.0", "p.1", "p.2"), first=True)
    flow.settle("p.1", "won")
    assert flow.attempt() == Resolved(value='"won"')
    assert [(call.id, call.kind, call.state, call.value) for call in flow.calls] == [
        ("p.3", Kind.RUN, State.RESOLVED, "1")
    ]
    assert flow.canceled == ["p.0", "p.2"]


def test_the_earliest_wins_when_several_have_settled():
    flow = Flow(race)
    flow.attempt()
    flow.settle("p.0", "later", at=7.0)
    flow.settle("p.1", "earlier", at=6.0)
    assert flow.attempt() == Resolved(value='"earlier"')


def test_the_winner_is_on_record():
    flow = Flow(race)
    flow.attempt()
    flow.settle("p.1", "won", at=6.0)
    flow.attempt()
    flow.settle("p.0", "too late, whatever its clock says", at=1.0)
    flow.settle("p.2", state=State.CANCELED)
    assert flow.attempt() == Resolved(value='"won"')
    assert flow.calls == []


def test_losers_may_go_on_and_the_function_outlives_them():
    flow = Flow(lambda ctx: race(ctx, cancel_losers=False))
    flow.attempt()
    flow.settle("p.1", "won")
    assert flow.attempt() == Suspended(awaits=("p.0", "p.2"))
    assert flow.canceled == []


def test_the_first_failure_is_the_outcome():
    flow = Flow(race)
    flow.attempt()
    flow.settle("p.0", state=State.REJECTED, error=BOOM)
    decision = flow.attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["promises"] == ["p.0"]


def test_a_winner_that_was_retried_is_waited_for():
    flow = Flow(race)
    flow.attempt()
    flow.settle("p.1", state=State.REJECTED, error=BOOM)
    flow.attempt()
    flow.settle("p.0", state=State.CANCELED)
    flow.settle("p.2", state=State.CANCELED)
    flow.settle("p.1", state=State.PENDING)
    assert flow.attempt() == Suspended(awaits=("p.1",))
    flow.settle("p.1", "at last")
    assert flow.attempt() == Resolved(value='"at last"')


def test_what_is_settled_already_wins_at_once():
    def function(ctx):
        return (yield from ctx.race(ctx.rpc("a"), ctx.run(lambda: "here")))

    flow = Flow(function)
    assert flow.attempt() == Resolved(value='"here"')
    assert flow.canceled == ["p.0"]


def test_a_race_within_a_gather_wakes_with_each():
    def function(ctx):
        either = ctx.race(ctx.rpc("a"), ctx.rpc("b"))
        return (yield from ctx.gather(either, ctx.rpc("c")))

    flow = Flow(function)
    assert flow.attempt() == Suspended(awaits=("p.0", "p.1", "p.3"), first=True)
    flow.settle("p.1", "b")
    assert flow.attempt() == Suspended(awaits=("p.3",))
    flow.settle("p.3", "c")
    assert flow.attempt() == Resolved(value='["b","c"]')


def test_a_race_that_loses_another_takes_its_own_losers_with_it():
    def function(ctx):
        inner = ctx.race(ctx.rpc("b"), ctx.sleep(3600))
        return (yield from ctx.race(ctx.rpc("a"), inner))

    flow = Flow(function)
    flow.attempt()
    flow.settle("p.3", "a", at=1.0)
    flow.settle("p.0", "b", at=2.0)
    assert flow.attempt() == Resolved(value='"a"')
    assert flow.canceled == ["p.1"]


def test_a_gather_within_a_race_needs_all_of_its_own():
    def function(ctx):
        both = ctx.gather(ctx.rpc("a"), ctx.rpc("b"))
        return (yield from ctx.race(both, ctx.sleep(60)))

    flow = Flow(function)
    assert flow.attempt() == Suspended(awaits=("p.0", "p.1", "p.2"), first=True)
    flow.settle("p.0", "a")
    assert flow.attempt() == Suspended(awaits=("p.1", "p.2"), first=True)
    flow.settle("p.1", "b")
    assert flow.attempt() == Resolved(value='["a","b"]')


def test_a_race_between_others_than_the_recorded_ones_is_a_mismatch():
    competitors = ["a", "b"]

    def function(ctx):
        futures = {"a": (yield from ctx.rfi("a")), "b": (yield from ctx.rfi("b")), "c": (yield from ctx.rfi("c"))}
        return (yield from ctx.race(*(futures[name] for name in competitors), cancel_losers=False))

    flow = Flow(function)
    flow.attempt()
    flow.settle("p.0", "a")
    flow.attempt()
    competitors[:] = ["b", "c"]
    decision = flow.attempt()
    assert isinstance(decision, SetAside)
    assert "g.race" in decision.note


@pytest.mark.parametrize("operations", [(), (1,), ("x", 2)], ids=str)
def test_only_operations_race(operations):
    def function(ctx):
        return (yield from ctx.race(*operations))

    decision = Flow(function).attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["type"] == "MisuseError"
    assert "ctx.race()" in decision.error["message"]
