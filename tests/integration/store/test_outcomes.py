from datetime import timedelta

import pytest
from django.db import IntegrityError

from flows.domain.promise import Continuation, Kind, Phase, State
from flows.engine.decision import Failed, Resolved, SetAside, Suspended
from flows.store import outcomes, promises, sql, sweeps
from flows.store.claims import ReadyRef
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, expire_lease, resolve, suspend


def test_a_promise_settles_once(start, claim):
    start()
    taken = claim()
    assert resolve(taken, "1") is not None
    assert resolve(taken, "2") is None
    promise = promises.get("p")
    assert (promise.state, promise.value, promise.phase) == (State.RESOLVED, 1, Phase.NONE)


def test_an_overtaken_attempt_changes_nothing_and_is_recorded_as_fenced(start, claim, holder):
    start()
    late = claim()
    expire_lease(holder)
    sweeps.recover()
    assert suspend(late, call(late, 0)) is None
    current = claim()
    assert resolve(late, '"late"') is None
    assert resolve(current, '"current"') is not None
    assert promises.get("p").value == "current"
    assert promises.children("p", 10) == []
    assert [each["outcome"] for each in promises.attempts("p")] == ["fenced", "resolved"]


def test_a_suspension_creates_its_children_in_the_same_statement(start, claim):
    start(timeout=timedelta(minutes=5))
    parent = claim()
    step = call(parent, 1, Kind.RUN, state=State.RESOLVED, value="7")
    assert suspend(parent, call(parent, 0, timeout=timedelta(hours=1)), step, awaits=("p.0",)) is not None
    child, done = promises.get("p.0"), promises.get("p.1")
    assert child.phase is Phase.READY
    assert child.deadline_at == promises.get("p").deadline_at
    assert (done.state, done.value, done.phase) == (State.RESOLVED, 7, Phase.NONE)


def test_a_detached_child_has_its_own_lineage_and_deadline(start, claim):
    start(timeout=timedelta(minutes=5))
    parent = claim()
    detached = call(parent, 0, Kind.DETACHED, timeout=timedelta(hours=1))
    outcomes.commit([Outcome(claim=parent, calls=(detached,), decision=Resolved(value="null"))])
    child = promises.get("p.0")
    assert (child.root_id, child.parent_id) == ("p.0", "p")
    assert child.deadline_at > promises.get("p").deadline_at


def test_one_statement_settles_a_parent_and_creates_children_for_another(start, claim):
    start("p")
    start("q")
    first, second = claim("p"), claim("q")
    batch = [
        Outcome(claim=first, decision=Resolved(value="1")),
        Outcome(claim=second, calls=(call(second, 0, Kind.DETACHED),), decision=Resolved(value="2")),
    ]
    assert set(outcomes.commit(batch)) == {"p", "q"}
    assert promises.children("q", 10) == ["q.0"]


def test_a_child_and_its_parent_may_end_in_one_batch(start, claim):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=(call(parent, 0, Kind.RFI),))])
    child = claim("p.0", "child")
    suspended = Outcome(claim=parent, decision=Suspended(awaits=("p.0",)))
    written = outcomes.commit([suspended, Outcome(claim=child, decision=Resolved(value="1"))])
    assert set(written) == {"p", "p.0"}
    assert promises.get("p.0").state is State.RESOLVED
    assert claim().fence == 2


def test_a_failed_attempt_is_ready_again_after_its_delay(start, claim, holder):
    start()
    error = {"type": "ValueError", "message": "boom", "traceback": "", "cause": None}
    failed = Failed(error=error, exception=ValueError(), delay=timedelta(hours=1), failures=1)
    outcomes.commit([Outcome(claim=claim(), decision=failed)])
    promise = promises.get("p")
    assert (promise.state, promise.phase, promise.note) == (State.PENDING, Phase.READY, "ValueError: boom")
    row = sql.rows("SELECT ready_at > now() + interval '59 minutes' AS later, failures FROM flows_promise")[0]
    assert row == {"later": True, "failures": 1}


def test_a_set_aside_promise_is_claimed_by_nobody(start, claim, holder):
    start()
    outcomes.commit([Outcome(claim=claim(), decision=SetAside(note="the code changed"))])
    promise = promises.get("p")
    assert (promise.state, promise.phase, promise.note) == (State.PENDING, Phase.ASIDE, "the code changed")
    assert sweeps.recover().ready == []
    assert sweeps.take_unsent(["g"], []) == []


def test_an_attempt_past_the_deadline_cannot_settle(start, claim):
    start()
    taken = claim()
    sql.rows("UPDATE flows_promise SET deadline_at = now() - interval '1 ms'")
    assert resolve(taken) is None
    assert promises.get("p").state is State.TIMEDOUT


def test_settling_names_the_parent_and_how_it_hangs(start, claim):
    start()
    parent = claim()
    suspend(parent, call(parent, 0), call(parent, 1))
    committed = resolve(claim("p.0", "child"))
    assert committed is not None
    assert committed.parent == ReadyRef(id="p", group="g", function="f", was_suspended=True)
    assert committed.continuation is Continuation.CHORD


def test_a_child_id_that_is_taken_writes_nothing(start, claim):
    start("p.0")
    start("p")
    parent = claim()
    with pytest.raises(IntegrityError):
        suspend(parent, call(parent, 0))
    assert promises.get("p").phase is Phase.CLAIMED


def test_a_local_step_that_is_tried_again_updates_its_record(start, claim):
    start()
    first = claim()
    error = {"type": "ValueError", "message": "boom", "traceback": "", "cause": None}
    step = call(first, 0, Kind.RUN, failures=1, error=error)
    failed = Failed(error=error, exception=ValueError(), delay=timedelta(0), failures=0)
    outcomes.commit([Outcome(claim=first, calls=(step,), decision=failed)])
    second = claim()
    assert second.invocation.checkpoints[0].failures == 1
    done = call(second, 0, Kind.RUN, state=State.RESOLVED, value="5", failures=1, is_known=True)
    outcomes.commit([Outcome(claim=second, calls=(done,), decision=Resolved(value="5"))])
    assert promises.get("p.0").value == 5


def test_what_is_written_twice_because_an_answer_was_lost_is_there_once(start, claim):
    start()
    running = claim()
    unfinished = Outcome(claim=running, calls=(call(running, 0, Kind.RFI),))
    assert set(outcomes.commit([unfinished])) == set(outcomes.commit([unfinished], again=True)) == {"p"}
    assert promises.children("p", 10) == ["p.0"]


def test_an_attempt_that_ends_clears_the_losses_of_earlier_ones(start, claim, holder):
    start()
    for _ in range(4):
        claim()
        expire_lease(holder)
        sweeps.recover()
    parent = claim()
    suspend(parent, call(parent, 0))
    assert sql.rows("SELECT losses FROM flows_promise WHERE id = 'p'") == [{"losses": 0}]
