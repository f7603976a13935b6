from contextlib import closing

import pytest
from django.db import connection

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
    """Start a promise that no message was sent for; return how others see what is noted of it, and its row's place.

    They see nothing while it is locked.
    """
    start()
    sql.rows("UPDATE flows_promise SET sent_at = NULL")

    def seen():
        with closing(connection.copy()) as other, other.cursor() as cursor:
            cursor.execute("SELECT sends, ctid::text FROM flows_promise FOR UPDATE SKIP LOCKED")
            return cursor.fetchall()

    return seen


def test_who_comes_for_a_message_meets_no_sweep_that_still_notes_it(unsent, monkeypatch):
    """A claim passes over what is locked, and the promise would wait for the next message, ever longer."""
    seen: list[tuple[int, str]] = []

    def send(ready):
        seen.extend(row for _ in ready for row in unsent())
        return ready

    monkeypatch.setattr(canvas, "send", send)
    fire(["g"], [], list, deadlines=False)
    assert seen == unsent()
    assert [sends for sends, _ in seen] == [1]


def test_what_the_broker_does_not_take_is_due_at_the_next_sweep(unsent, monkeypatch):
    monkeypatch.setattr(canvas, "send", lambda ready: [])
    fire(["g"], [], list, deadlines=False)
    assert [sends for sends, _ in unsent()] == [0]
    assert [each.id for each in sweeps.take_unsent(["g"], [])] == ["p"]
