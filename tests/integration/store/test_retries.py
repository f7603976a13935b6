from datetime import timedelta

from flows.domain.errors import PromiseRejected
from flows.domain.promise import Kind, Phase, State, describe_error
from flows.engine.decision import Rejected, Resolved, Suspended
from flows.store import joins, outcomes, promises, retries, sql
from flows.store.cancel import cancel_tree
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, resolve

BOOM = {"type": "ValueError", "message": "boom", "traceback": "", "cause": None}

LOST = BOOM | {"type": "WorkerLost"}


def reject(claim, error=BOOM):
    outcomes.commit([Outcome(claim=claim, decision=Rejected(error=error, exception=ValueError()))])


def uncaught(*promise_ids):
    failure = PromiseRejected(promise_ids[0], BOOM)
    failure.also_failed = promise_ids[1:]
    return describe_error(failure)


def states(*ids):
    return {id: promises.get(id).state.value for id in ids}


def test_a_rejected_promise_gets_a_new_chance_with_its_finished_steps(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0, Kind.RUN, state=State.RESOLVED, value="7"),))])
    reject(parent)
    assert [ready.id for ready in retries.reopen("p")] == ["p"]
    again = claim()
    assert (again.fence, again.invocation.failures) == (2, 0)
    assert [c.value for c in again.invocation.checkpoints] == ["7"]


def test_the_failures_that_nobody_caught_get_it_too(start, claim):
    start()
    parent = claim()
    decision = Suspended(awaits=("p.0", "p.1", "p.2"))
    outcomes.commit([Outcome(claim=parent, calls=tuple(call(parent, n) for n in range(3)), decision=decision)])
    resolve(claim("p.0", "child"))
    child = claim("p.1", "child")
    step = call(child, 0, Kind.RUN, state=State.REJECTED, error=BOOM, failures=10)
    outcomes.commit([Outcome(claim=child, calls=(step,))])
    reject(child, uncaught("p.1.0"))
    reject(claim("p.2", "child"))
    joins.join(["p"])
    reject(claim(), uncaught("p.1", "p.2"))
    assert sorted(ready.id for ready in retries.reopen("p")) == ["p", "p.1", "p.2"]
    assert states("p", "p.0", "p.1", "p.1.0", "p.2") == {
        "p": "pending",
        "p.0": "resolved",
        "p.1": "pending",
        "p.1.0": "pending",
        "p.2": "pending",
    }
    assert promises.get("p.1.0").phase is Phase.NONE


def test_a_failure_that_was_caught_stays(start, claim):
    start()
    parent = claim()
    decision = Suspended(awaits=("p.0",))
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),), decision=decision)])
    reject(claim("p.0", "child"))
    joins.join(["p"])
    reject(claim())
    retries.reopen("p")
    assert states("p", "p.0") == {"p": "pending", "p.0": "rejected"}


def test_calls_that_were_canceled_with_a_promise_that_was_given_up_come_back(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),))])
    reject(parent, LOST)
    cancel_tree("p.0")
    retries.reopen("p")
    assert states("p", "p.0") == {"p": "pending", "p.0": "pending"}


def test_below_a_call_that_was_given_up_what_was_canceled_comes_back(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),), decision=Suspended(awaits=("p.0",)))])
    child = claim("p.0", "child")
    outcomes.commit([Outcome(claim=child, calls=(call(child, 0),))])
    reject(child, LOST)
    cancel_tree("p.0.0")
    joins.join(["p"])
    reject(claim(), uncaught("p.0"))
    retries.reopen("p")
    assert set(states("p", "p.0", "p.0.0").values()) == {"pending"}


def test_the_losers_of_a_race_stay_canceled(start, claim):
    start()
    parent = claim()
    decision = Suspended(awaits=("p.0", "p.1"), first=True)
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0), call(parent, 1)), decision=decision)])
    reject(claim("p.0", "child"))
    joins.join(["p"])
    rejected = Rejected(error=uncaught("p.0"), exception=ValueError())
    outcomes.commit([Outcome(claim=claim(), cancels=("p.1",), decision=rejected)])
    retries.reopen("p")
    assert states("p", "p.0", "p.1") == {"p": "pending", "p.0": "pending", "p.1": "canceled"}


def test_what_timed_out_with_its_caller_comes_back_with_it(start, claim):
    start()
    parent = claim()
    decision = Suspended(awaits=("p.0",))
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),), decision=decision)])
    child = claim("p.0", "child")
    outcomes.commit([Outcome(claim=child, calls=(call(child, 0),), decision=Suspended(awaits=("p.0.0",)))])
    sql.rows("UPDATE flows_promise SET created_at = now() - interval '1 hour', deadline_at = now() WHERE id <> 'p'")
    promises.get_many(["p.0", "p.0.0"])
    joins.join(["p"])
    reject(claim(), uncaught("p.0"))
    assert states("p.0", "p.0.0") == {"p.0": "timedout", "p.0.0": "timedout"}
    retries.reopen("p")
    assert set(states("p", "p.0", "p.0.0").values()) == {"pending"}


def test_a_detached_call_that_was_canceled_later_stays_so(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0, Kind.DETACHED),))])
    reject(parent)
    cancel_tree("p.0")
    retries.reopen("p")
    assert states("p", "p.0") == {"p": "pending", "p.0": "canceled"}


def test_calls_that_were_canceled_before_stay_so(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),))])
    cancel_tree("p.0")
    reject(parent)
    retries.reopen("p")
    assert states("p", "p.0") == {"p": "pending", "p.0": "canceled"}


def test_it_has_its_whole_time_again(start, claim):
    start(timeout=timedelta(hours=1))
    reject(claim())
    sql.rows(
        "UPDATE flows_promise SET created_at = created_at - interval '2 h', deadline_at = deadline_at - interval '2 h'"
    )
    for _ in range(2):
        retries.reopen("p")
        reopened = promises.get("p")
        assert reopened.state is State.PENDING
        (row,) = sql.rows("SELECT deadline_at - reopened_at AS time FROM flows_promise")
        assert abs(row["time"] - timedelta(hours=1)) < timedelta(seconds=1)
        reject(claim())
        sql.rows(
            "UPDATE flows_promise SET deadline_at = deadline_at - interval '10 min', "
            "reopened_at = reopened_at - interval '10 min'"
        )


def test_other_outcomes_are_final(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),), decision=Suspended(awaits=("p.0",)))])
    reject(claim("p.0", "child"))
    assert retries.reopen("p.0") == []
    joins.join(["p"])
    outcomes.commit([Outcome(claim=claim(), decision=Resolved(value="1"))])
    assert retries.reopen("p") == []
    assert states("p", "p.0") == {"p": "resolved", "p.0": "rejected"}


def test_a_claim_that_is_taken_back_is_ready_for_others_and_no_loss(start, claim):
    start()
    hanging = claim()
    assert [ready.id for ready in retries.release("p")] == ["p"]
    assert retries.release("p") == []
    assert resolve(hanging) is None
    assert [attempt["outcome"] for attempt in promises.attempts("p")] == ["fenced"]
    assert sql.rows("SELECT losses, phase FROM flows_promise") == [{"losses": 0, "phase": "ready"}]
    assert claim().fence == hanging.fence + 1


def test_what_settled_meanwhile_is_not_released(start, claim):
    start()
    resolve(claim())
    assert retries.release("p") == []
    assert states("p") == {"p": "resolved"}


def test_the_next_holder_keeps_its_claim_from_the_last_one(start, claim):
    start()
    hanging = claim()
    retries.release("p")
    second = claim()
    assert resolve(hanging, "1") is None
    assert resolve(second, "2") is not None
    assert promises.get("p").value == 2
