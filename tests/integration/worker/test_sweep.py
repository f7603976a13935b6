import pytest

from flows import canvas
from flows.conf import Settings
from flows.engine.decision import Resolved, Suspended
from flows.store import outcomes, promises, sql, sweeps
from flows.store.outcomes import Outcome
from flows.worker.sweep import fire, sweep
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


@pytest.fixture
def unsent(start):
    """Start a promise that no message was sent for; return how to read what is noted of it, and its row's place."""
    start()
    sql.rows("UPDATE flows_promise SET sent_at = NULL")
    return lambda: sql.rows("SELECT sends, ctid::text AS place FROM flows_promise")[0]


def test_who_comes_for_a_message_meets_no_sweep_that_still_notes_it(unsent, monkeypatch):
    """A claim passes over what is locked, and the promise would wait for the next message, ever longer."""
    noted: list[sql.Row] = []

    def send(ready):
        noted.extend(unsent() for _ in ready)
        return ready

    monkeypatch.setattr(canvas, "send", send)
    fire(["g"], [], list, deadlines=False)
    assert noted == [unsent()]
    assert noted[0]["sends"] == 1


def test_what_the_broker_does_not_take_is_due_at_the_next_sweep(unsent, monkeypatch):
    monkeypatch.setattr(canvas, "send", lambda ready: [])
    fire(["g"], [], list, deadlines=False)
    assert unsent()["sends"] == 0
    assert [each.id for each in sweeps.take_unsent(["g"], [])] == ["p"]
