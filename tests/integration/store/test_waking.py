from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction

from flows.domain.promise import Kind, Phase, State
from flows.engine.decision import Resolved, Suspended
from flows.store import claims, joins, outcomes, promises, sql
from flows.store.claims import ReadyRef
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, resolve


def race(parent, *calls, awaits):
    outcome = Outcome(claim=parent, calls=calls, decision=Suspended(awaits=awaits, first=True))
    outcomes.commit([outcome])


def has_woken(committed):
    return committed.woke_parent and promises.get("p").phase is Phase.READY


def test_the_only_call_that_is_awaited_wakes_its_parent_with_its_own_commit(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),), decision=Suspended(awaits=("p.0",)))])
    assert has_woken(resolve(claim("p.0", "child")))
    assert joins.join(["p"]) == []
    assert {c.id: c.state for c in claim().invocation.checkpoints} == {"p.0": State.RESOLVED}


def test_a_parent_that_somebody_has_locked_is_left_to_the_join(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),), decision=Suspended(awaits=("p.0",)))])
    child = claim("p.0", "child")

    def commit_elsewhere():
        try:
            return resolve(child)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        sql.rows("SELECT FROM flows_promise WHERE id = 'p' FOR UPDATE")
        committed = pool.submit(commit_elsewhere).result(timeout=10)
    assert promises.get("p.0").state is State.RESOLVED
    assert committed.parent is not None
    assert not committed.woke_parent
    assert [ready.id for ready in joins.join(["p"])] == ["p"]


def test_the_first_to_settle_wakes_a_race(start, claim):
    start()
    parent = claim()
    race(parent, call(parent, 0), call(parent, 1), call(parent, 2), awaits=("p.0", "p.1", "p.2"))
    assert joins.join(["p"]) == []
    resolve(claim("p.1", "child"))
    assert [ready.id for ready in joins.join(["p"])] == ["p"]
    assert {c.id: c.state for c in claim().invocation.checkpoints}["p.1"] is State.RESOLVED


def test_what_settles_while_a_race_is_suspended_again_is_not_missed(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0), call(parent, 1)))])
    resolve(claim("p.0", "child"))
    race(parent, awaits=("p.0", "p.1"))
    assert [ready.id for ready in joins.join(["p"])] == ["p"]


def test_losers_that_go_on_hold_nobody_up(start, claim):
    """A loser stays pending; the parent then waits for another call alone."""
    start()
    first = claim()
    race(first, call(first, 0), call(first, 1), awaits=("p.0", "p.1"))
    resolve(claim("p.0", "child"))
    joins.join(["p"])
    second = claim()
    outcomes.commit([Outcome(claim=second, calls=(call(second, 2),), decision=Suspended(awaits=("p.2",)))])
    assert has_woken(resolve(claim("p.2", "child")))


def test_a_loser_that_is_awaited_again_wakes(start, claim):
    start()
    first = claim()
    race(first, call(first, 0), call(first, 1), awaits=("p.0", "p.1"))
    resolve(claim("p.0", "child"))
    joins.join(["p"])
    second = claim()
    outcomes.commit([Outcome(claim=second, calls=(call(second, 2),), decision=Suspended(awaits=("p.2",)))])
    resolve(claim("p.2", "child"))
    outcomes.commit([Outcome(claim=claim(), decision=Suspended(awaits=("p.1",)))])
    assert joins.join(["p"]) == []
    assert has_woken(resolve(claim("p.1", "child")))


def test_calls_by_rpc_are_awaited_before_their_caller_is_suspended(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0), call(parent, 1, Kind.RFI)))])
    found = sql.rows("SELECT id FROM flows_promise WHERE continuation = 'chord'")
    assert [row["id"] for row in found] == ["p.0"]
    decision = Suspended(awaits=("p.0", "p.2"))
    before = frozenset({"p.0"})
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 2),), decision=decision, awaited_before=before)])
    resolve(claim("p.2", "child"))
    assert joins.join(["p"]) == []
    resolve(claim("p.0", "child"))
    assert [ready.id for ready in joins.join(["p"])] == ["p"]


def test_what_was_written_as_awaited_and_is_not_after_all_holds_nobody_up(start, claim):
    """A race that is decided as soon as it begins: its losers go on, and the parent waits for other calls."""
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),))])
    calls, decision, before = (call(parent, 1), call(parent, 2)), Suspended(awaits=("p.1", "p.2")), frozenset({"p.0"})
    outcomes.commit([Outcome(claim=parent, calls=calls, decision=decision, awaited_before=before)])
    for promise_id in decision.awaits:
        resolve(claim(promise_id, "child"))
    assert [ready.id for ready in joins.join(["p"])] == ["p"]


def test_losers_are_canceled_with_their_trees_in_the_transaction_of_the_outcome(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0), call(parent, 1)))])
    child = claim("p.1", "child")
    outcomes.commit([Outcome(claim=child, calls=(call(child, 0),), decision=Suspended(awaits=("p.1.0",)))])
    outcomes.commit([Outcome(claim=parent, cancels=("p.1",), decision=Resolved(value="1"))])
    assert [promises.get(id).state for id in ("p", "p.0", "p.1", "p.1.0")] == [
        State.RESOLVED,
        State.PENDING,
        State.CANCELED,
        State.CANCELED,
    ]


def test_who_lost_the_claim_cancels_nothing(start, claim, holder):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),))])
    outcomes.commit([Outcome(claim=parent, released=True)])
    claim()
    assert outcomes.commit([Outcome(claim=parent, cancels=("p.0",), decision=Resolved(value="1"))]) == {}
    assert promises.get("p.0").state is State.PENDING


def test_a_call_may_have_its_deadline_as_a_moment_within_its_parents(start, claim):
    start(timeout=timedelta(hours=1))
    parent = claim()
    soon, late = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (5, 500))
    calls = (call(parent, 0, Kind.TIMER, timeout=soon), call(parent, 1, Kind.EXTERNAL, timeout=late))
    outcomes.commit([Outcome(claim=parent, calls=calls)])
    assert promises.get("p.0").deadline_at == soon
    assert promises.get("p.1").deadline_at == promises.get("p").deadline_at == parent.invocation.deadline_at


def test_only_the_addressee_may_claim(start, claim, holder):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0, addressee="4711"),))])
    named = ReadyRef(id="p.0", group="g", function="child", addressee="4711")
    assert claims.claim_named(named, holder) == (None, None)
    assert claims.claim_ready("g", ["child"], 5, holder) == ([], None)
    addressee = claims.Holder(node_id=holder.node_id, session=holder.session, addresses=("4711", "node@test"))
    (taken,), _ = claims.claim_ready("g", ["child"], 5, addressee)
    assert taken.invocation.addressee == "4711"


def test_a_call_keeps_the_version_that_ran_it_first(start, claim):
    from dataclasses import replace

    start()
    first = claim()
    assert first.invocation.version is None
    ran = replace(first, invocation=first.invocation._replace(version=2))
    outcomes.commit([Outcome(claim=ran, calls=(call(ran, 0),), decision=Suspended(awaits=("p.0",)))])
    resolve(claim("p.0", "child"))
    assert claim().invocation.version == 2


@pytest.mark.parametrize("state", [State.RESOLVED, State.REJECTED])
def test_an_external_promise_is_settled_once_and_its_parent_woken(start, claim, state):
    start()
    parent = claim()
    decision = Suspended(awaits=("p.0",))
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0, Kind.EXTERNAL),), decision=decision)])
    assert promises.get("p.0").phase is Phase.NONE
    outcome = {"value": "1"} if state is State.RESOLVED else {"error": {"type": "E", "message": "no"}}
    assert promises.settle("p.0", state, **outcome) == "p"
    assert promises.settle("p.0", State.RESOLVED, value="2") is None
    assert promises.get("p.0").state is state
    assert [ready.id for ready in joins.join(["p"])] == ["p"]


def test_only_what_is_external_is_settled_from_outside(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0), call(parent, 1, Kind.TIMER)))])
    for promise_id in ("p", "p.0", "p.1", "nobody"):
        assert promises.settle(promise_id, State.RESOLVED, value="1") is None
    assert promises.get("p.0").state is State.PENDING
