import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction

from flows.domain.errors import AttemptFenced, MisuseError
from flows.domain.promise import Kind, State
from flows.engine.decision import Failed, Interrupted, Resolved, Suspended
from flows.store import joins, outcomes, promises, sql
from flows.worker import publish
from flows.worker.ledger import PORTION, Ledger
from tests.integration.conftest import call, resolve, suspend
from tests.integration.worker.conftest import Gate, end_session
from tests.orders.models import Payment, pay
from tests.waiting import wait_until


def test_what_a_running_attempt_did_is_committed_while_it_runs(start, claim, ledger):
    start()
    running = claim()
    ledger.begin(running)
    ledger.record(call(running, 0))
    ledger.before_user_code()
    wait_until(lambda: promises.children("p", 10) == ["p.0"], within_s=5)


def test_a_cancellation_and_what_is_recorded_after_it_are_committed_while_it_runs(start, claim, ledger):
    start()
    running = claim()
    suspend(running, call(running, 0))
    sql.rows("UPDATE flows_promise SET phase = 'ready', ready_at = now() WHERE id = 'p'")
    again = claim()
    ledger.begin(again)
    ledger.cancel(["p.0"])
    ledger.record(call(again, 1))
    ledger.before_user_code()
    wait_until(lambda: promises.children("p", 10) == ["p.0", "p.1"], within_s=5)
    assert promises.get("p.0").state is State.CANCELED


def test_what_was_finished_is_committed_while_the_next_attempt_runs(start, claim, patient):
    start("p")
    start("q")
    patient.enqueue([claim("p"), claim("q")])
    patient.begin_next()
    patient.defer(Resolved(value="1"))
    assert not promises.get("p").is_settled
    patient.begin_next()
    wait_until(lambda: promises.get("p").is_settled, within_s=5)
    assert not promises.get("q").is_settled


@pytest.fixture
def gate(monkeypatch):
    """Hold up whoever writes until it is opened."""
    gate, commit = Gate(), outcomes.commit

    def wait_and_commit(batch, **options):
        gate.wait()
        return commit(batch, **options)

    monkeypatch.setattr("flows.worker.publish.outcomes.commit", wait_and_commit)
    yield gate
    gate.opened.set()


def test_attempts_go_on_while_the_watchdog_writes_what_was_finished(start, claim, patient, gate):
    ids = ["p", "q", "r"]
    for promise_id in ids:
        start(promise_id)
    taken = [claim(promise_id) for promise_id in ids]
    patient.enqueue(taken)
    patient.begin_next()
    patient.defer(Resolved(value="1"))
    patient.begin_next()
    assert gate.reached.wait(timeout=5)
    patient.defer(Resolved(value="2"))
    patient.begin_next()
    patient.record(call(taken[2], 0))
    assert not promises.get("p").is_settled
    gate.opened.set()
    patient.defer(Resolved(value="3"))
    assert [promises.get(promise_id).value for promise_id in ids] == [1, 2, 3]
    assert promises.children("r", 10) == ["r.0"]


@pytest.fixture
def slow(unwatched, settings):
    """A ledger in which nothing comes of age."""
    settings.FLOWS = settings.FLOWS | {"COMMIT_WITHIN": timedelta(minutes=1)}
    return unwatched


def test_many_calls_are_written_before_the_rest_are_made(start, claim, slow):
    start()
    running = claim()
    slow.begin(running)
    for number in range(PORTION - 1):
        slow.record(call(running, number))
    assert promises.children("p", 1) == []
    slow.record(call(running, PORTION - 1))
    assert len(promises.children("p", 2 * PORTION)) == PORTION
    # They were written as awaited, but what the parent waits for after all are two others.
    awaits = tuple(f"p.{number}" for number in (PORTION, PORTION + 1))
    for number in (PORTION, PORTION + 1):
        slow.record(call(running, number))
    slow.finish(Suspended(awaits=awaits), celery_continues=False)
    for promise_id in awaits:
        resolve(claim(promise_id, "child"))
    assert [ready.id for ready in joins.join(["p"])] == ["p"]


def test_many_local_steps_are_left_to_the_watchdog(start, claim, slow):
    start()
    running = claim()
    slow.begin(running)
    for number in range(2 * PORTION):
        slow.record(call(running, number, Kind.RUN, state=State.RESOLVED, value="1"))
    assert promises.children("p", 1) == []


def test_calls_that_the_watchdog_is_late_with_are_committed_by_the_thread_itself(start, claim, unwatched):
    start()
    running = claim()
    unwatched.begin(running)
    numbers = itertools.count()

    def is_written():
        unwatched.record(call(running, next(numbers)))
        return promises.children("p", 1)

    assert not is_written()
    wait_until(is_written, within_s=5)


def test_ends_that_the_watchdog_is_late_with_are_committed_by_the_thread_itself(start, claim, unwatched):
    ids = [f"p{number}" for number in range(50)]
    for promise_id in ids:
        start(promise_id)
    unwatched.enqueue([claim(promise_id) for promise_id in ids])

    def is_written():
        unwatched.begin_next()
        unwatched.defer(Resolved(value="1"), more_follows=True)
        return promises.get("p0").is_settled

    assert not is_written()
    wait_until(is_written, within_s=5)


def test_what_one_thread_cannot_write_holds_up_no_other(start, claim, queue_length, monkeypatch):
    persist = publish.persist
    *ids, stuck = [f"p{number}" for number in range(8)]
    for promise_id in (*ids, stuck):
        start(promise_id)

    def persist_others(batch, **options):
        assert stuck not in [outcome.claim.invocation.id for outcome in batch], "on purpose"
        return persist(batch, **options)

    with monkeypatch.context() as patched:
        patched.setattr(publish, "persist", persist_others)
        ledgers = {promise_id: Ledger() for promise_id in (stuck, *ids)}
        for promise_id, ledger in ledgers.items():
            ledger.begin(claim(promise_id))
            ledger.defer(Resolved(value="1"), more_follows=True)
        wait_until(lambda: all(promises.get(promise_id).is_settled for promise_id in ids), within_s=5)
        assert not promises.get(stuck).is_settled
    wait_until(lambda: promises.get(stuck).is_settled, within_s=5)


def test_what_was_done_under_a_lost_claim_is_refused_before_the_next_one_begins(start, claim, unwatched):
    start()
    unwatched.enqueue([claim()])
    unwatched.begin_next()
    unwatched.defer(Resolved(value="1"), more_follows=True)
    sql.rows("UPDATE flows_promise SET phase = 'ready', node_id = NULL, session = NULL")
    unwatched.enqueue([claim()])
    unwatched.begin_next()
    unwatched.defer(Resolved(value="2"))
    assert promises.get("p").value == 2
    assert [attempt["outcome"] for attempt in promises.attempts("p")] == ["fenced", "resolved"]


def test_what_nothing_waits_behind_is_committed_at_once(start, claim, patient):
    start()
    patient.enqueue([claim()])
    patient.begin_next()
    patient.defer(Resolved(value="1"))
    assert promises.get("p").is_settled


def test_an_attempt_that_lost_its_claim_learns_of_it_at_its_next_call(start, claim, ledger):
    start()
    running = claim()
    ledger.begin(running)
    sql.rows("UPDATE flows_promise SET phase = 'ready', node_id = NULL, session = NULL")
    ledger.record(call(running, 0))
    ledger.before_user_code()
    wait_until(lambda: ledger.due_at() is None, within_s=5)
    ledger.flush()  # waits until it is written
    with pytest.raises(AttemptFenced):
        ledger.record(call(running, 1))
    assert promises.children("p", 10) == []
    assert ledger.finish(Resolved(value="1"), celery_continues=False) == (None, [])


def test_zero_commits_each_call_on_its_own(start, claim, ledger, settings):
    settings.FLOWS = settings.FLOWS | {"COMMIT_WITHIN": timedelta(0)}
    start()
    running = claim()
    ledger.begin(running)
    ledger.record(call(running, 0))
    assert promises.children("p", 10) == ["p.0"]


def test_two_threads_never_commit_the_same_work(start, claim, patient):
    for number in range(20):
        start(f"p{number}")
    taken = [claim(f"p{number}") for number in range(20)]
    stop = threading.Event()

    def flush_all_the_time():
        while not stop.is_set():
            patient.flush()
        connection.close()

    other = threading.Thread(target=flush_all_the_time)
    other.start()
    try:
        patient.enqueue(taken)
        while patient.begin_next():
            patient.defer(Resolved(value="1"))
        patient.flush()
    finally:
        stop.set()
        other.join()
    assert sql.rows("SELECT outcome, count(*) FROM flows_attempt GROUP BY 1") == [{"outcome": "resolved", "count": 20}]


def test_work_that_could_not_be_written_is_kept(start, claim, ledger, monkeypatch):
    start()
    ledger.begin(claim())
    with monkeypatch.context() as patched:
        patched.setattr("flows.worker.publish.outcomes.commit", lambda _, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ledger.finish(Resolved(value="1"), celery_continues=False)
    ledger.flush()
    assert promises.get("p").value == 1


def test_an_attempt_that_ended_while_its_calls_could_not_be_written_is_kept_with_them(
    start, claim, ledger, monkeypatch
):
    start()
    running = claim()
    ledger.begin(running)
    ledger.record(call(running, 0, kind=Kind.RUN, state=State.RESOLVED, value="3"))
    gate = Gate()

    def fail(*_: object, **__: object) -> None:
        gate.wait()
        raise KeyError

    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as pool:
        patched.setattr("flows.worker.publish.persist", fail)
        flushed = pool.submit(ledger.flush)
        assert gate.reached.wait(timeout=5)
        ledger.defer(Resolved(value="1"), more_follows=True)
        gate.opened.set()
        with pytest.raises(KeyError):
            flushed.result(timeout=20)
    ledger.flush()
    assert promises.get("p").value == 1
    assert promises.get("p.0").value == 3


def test_work_whose_answer_was_lost_is_written_once(start, claim, ledger, monkeypatch):
    start()
    running = claim()
    ledger.begin(running)
    ledger.record(call(running, 0))
    lost: list[object] = []

    def commit(batch, **options):
        written = outcomes_commit(batch, **options)
        if not lost:
            lost.append(batch)
            raise OperationalError("the connection broke after the commit")
        return written

    outcomes_commit = outcomes.commit
    monkeypatch.setattr(outcomes, "commit", commit)
    ledger.flush()
    assert lost
    assert promises.children("p", 10) == ["p.0"]


def test_an_operation_inside_a_transaction_of_user_code_is_refused(start, claim, ledger):
    start()
    running = claim()
    ledger.begin(running)
    with transaction.atomic(), pytest.raises(MisuseError, match="ctx.atomic"):
        ledger.record(call(running, 0))
    ledger.finish(Resolved(value="1"), celery_continues=False)
    assert promises.children("p", 10) == []


def test_claims_that_wait_too_long_are_given_back(start, claim, ledger):
    start("p")
    start("q")
    ledger.enqueue([claim("p"), claim("q")])
    assert ledger.begin_next().invocation.id == "p"
    wait_until(lambda: promises.get("q").phase == "ready", within_s=5)
    assert ledger.begin_next() is None
    assert promises.get("p").phase == "claimed"


def test_a_child_that_settled_before_its_parent_was_suspended_is_not_missed(start, claim, ledger):
    start()
    parent = claim()
    ledger.begin(parent)
    ledger.record(call(parent, 0, Kind.RFI))
    ledger.flush()
    other = Ledger()
    other.begin(claim("p.0", "child"))
    other.finish(Resolved(value="1"), celery_continues=False)
    ledger.finish(Suspended(awaits=("p.0",)), celery_continues=False)
    assert promises.get("p").phase == "ready"


def test_an_outcome_that_cannot_be_written_does_not_hold_up_others(start, claim, patient):
    start("p")
    start("q")
    patient.enqueue([claim("p"), claim("q")])
    patient.begin_next()
    patient.defer(Failed(error={}, exception=ValueError(), delay="soon", failures=1))  # type: ignore[arg-type]  # wrong
    patient.begin_next()
    patient.finish(Resolved(value="1"), celery_continues=False)
    assert promises.get("q").value == 1
    assert promises.get("p").phase == "aside"


def test_an_attempt_whose_calls_cannot_be_written_is_set_aside_alone(start, claim, patient):
    for promise_id in ("p", "p.0", "q"):
        start(promise_id)
    parent = claim("p")
    patient.enqueue([claim("q"), parent])
    patient.begin_next()
    patient.defer(Resolved(value="1"))
    patient.begin_next()
    patient.record(call(parent, 0))
    patient.finish(Suspended(awaits=("p.0",)), celery_continues=False)
    assert promises.get("q").value == 1
    assert promises.get("p").phase == "aside"
    assert "its outcome cannot be written" in promises.get("p").note
    assert promises.get("p.0").parent_id is None


class TestAtomicSteps:
    @pytest.fixture
    def running(self, start, claim, ledger):
        start()
        running = claim()
        ledger.begin(running)
        return running

    def step(self, running):
        def step():
            pay("o", 5)
            return call(running, 0, Kind.RUN, state=State.RESOLVED, value="null")

        return step

    def test_what_a_step_writes_and_its_record_are_committed_together(self, ledger, running):
        ledger.commit_with(self.step(running))
        assert promises.children("p", 10) == ["p.0"]
        assert Payment.objects.count() == 1

    def test_a_callback_that_fails_after_the_commit_undoes_nothing(self, ledger, running):
        def step():
            transaction.on_commit(lambda: 1 / 0)
            return self.step(running)()

        assert ledger.commit_with(step).id == "p.0"
        assert (Payment.objects.count(), promises.children("p", 10)) == (1, ["p.0"])

    def test_a_step_that_raises_undoes_what_it_wrote(self, ledger, running):
        def step():
            pay("o", 5)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            ledger.commit_with(step)
        assert (Payment.objects.count(), promises.children("p", 10)) == (0, [])

    def test_an_attempt_that_lost_its_claim_writes_nothing_and_is_recorded_as_fenced(self, ledger, running):
        sql.rows("UPDATE flows_promise SET phase = 'ready', node_id = NULL, session = NULL")
        with pytest.raises(AttemptFenced):
            ledger.commit_with(self.step(running))
        assert (Payment.objects.count(), promises.children("p", 10)) == (0, [])
        assert [attempt["outcome"] for attempt in promises.attempts("p")] == ["fenced"]

    def test_a_database_that_goes_away_is_told_from_a_step_that_fails(self, ledger, running):
        def step():
            pay("o", 5)
            end_session()
            return self.step(running)()

        with pytest.raises(Interrupted):
            ledger.commit_with(step)
        assert (Payment.objects.count(), promises.children("p", 10)) == (0, [])

    def test_an_error_of_the_database_that_the_step_caused_is_the_steps_own(self, ledger, running):
        def step():
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 / 0")

        with pytest.raises(DatabaseError, match="division by zero"):
            ledger.commit_with(step)

    def test_inside_another_transaction_it_is_refused(self, ledger, running):
        with transaction.atomic(), pytest.raises(MisuseError, match=r"transaction.atomic\(\)"):
            ledger.commit_with(self.step(running))
        assert not Payment.objects.exists()
