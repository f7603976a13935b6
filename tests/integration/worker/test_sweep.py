from flows.conf import Settings
from flows.engine.decision import Resolved, Suspended
from flows.store import outcomes, promises, sweeps
from flows.store.outcomes import Outcome
from flows.worker.sweep import sweep
from tests.integration.conftest import call, expire_lease


def test_a_promise_that_is_given_up_takes_its_calls_with_it(start, claim, holder, queue_length):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),))])
    for _ in range(Settings().MAX_LOSSES - 1):
        expire_lease(holder)
        sweeps.recover()
        claim()
    expire_lease(holder)
    sweep(holder.node_id, recovers=True)
    assert promises.get("p").state == "rejected"
    assert promises.get("p.0").state == "canceled"


def test_a_sweep_wakes_the_parent_of_what_settled_unnoticed(start, claim, holder, queue_length):
    start()
    parent = claim()
    decision = Suspended(awaits=("p.0",))
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0),), decision=decision)])
    outcomes.commit([Outcome(claim=claim("p.0", "child"), decision=Resolved(value="1"))])
    sweep(holder.node_id, recovers=True)
    assert promises.get("p").phase == "ready"
