"""What one thread has done, committed together with what others have."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import transaction

from flows.engine.decision import Resolved
from flows.store import outcomes, promises, sql
from flows.worker import publish
from flows.worker.ledger import Ledger
from tests.integration.conftest import leaving
from tests.integration.worker.conftest import Gate


@contextmanager
def beside(act, gate):
    """Have another thread do something, and come as far as the gate; open that after the block."""
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(leaving, act)
        try:
            assert gate.reached.wait(timeout=5)
            yield
        finally:
            gate.opened.set()
        acting.result()


@pytest.fixture
def ended(start, claim, unwatched):
    """Return a function that ends the attempts of promises, each in a ledger of its own, and returns the ledgers."""

    def end(*ids):
        ledgers = [Ledger() for _ in ids]
        for ledger, promise_id in zip(ledgers, ids, strict=True):
            start(promise_id)
            ledger.begin(claim(promise_id))
            ledger.defer(Resolved(value="1"), more_follows=True)
        return ledgers

    return end


@pytest.fixture
def commits(monkeypatch):
    """The promises of each commit."""
    commits, commit = [], outcomes.commit

    def noted(batch, **options):
        commits.append([outcome.claim.invocation.id for outcome in batch])
        return commit(batch, **options)

    monkeypatch.setattr("flows.worker.publish.outcomes.commit", noted)
    return commits


def test_what_has_ended_in_other_threads_is_written_in_the_same_statement(ended, commits):
    ledgers = ended("p", "q", "r")
    ledgers[0].flush_due(ledgers)
    assert commits == [["p", "q", "r"]]
    assert all(promises.get(promise_id).is_settled for promise_id in "pqr")
    assert [ledger.due_at() for ledger in ledgers] == [None] * 3


def test_what_another_thread_writes_already_is_waited_for_by_nobody_else(ended, monkeypatch):
    mine, other = ended("p", "q")
    commit, gate = outcomes.commit, Gate()

    def hold_up_q(batch, **options):
        if batch[0].claim.invocation.id == "q":
            gate.wait()
        return commit(batch, **options)

    monkeypatch.setattr("flows.worker.publish.outcomes.commit", hold_up_q)
    with beside(other.flush, gate):
        mine.flush_due([mine, other])
        assert [promises.get(promise_id).is_settled for promise_id in "pq"] == [True, False]
    assert promises.get("q").is_settled


def test_two_attempts_of_one_promise_are_not_written_together(ended, claim, commits):
    lost, other = ended("p", "q")
    sql.rows("UPDATE flows_promise SET phase = 'ready', node_id = NULL, session = NULL WHERE id = 'p'")
    other.begin(claim("p"))
    other.defer(Resolved(value="2"), more_follows=True)
    lost.flush_due([lost, other])
    other.flush()
    assert commits == [["p"], ["q", "p"]]
    assert promises.get("p").value == 2
    assert [attempt["outcome"] for attempt in promises.attempts("p")] == ["fenced", "resolved"]


def test_what_touches_other_promises_is_written_alone(ended, start, claim, commits):
    (mine,) = ended("p")
    other = Ledger()
    start("q")
    other.begin(claim("q"))
    other.cancel(["q.0"])
    other.defer(Resolved(value="1"), more_follows=True)
    mine.flush_due([mine, other])
    other.flush_due([mine, other])
    assert commits == [["p"], ["q"]]


def test_who_has_nothing_to_lend_is_not_held_up(start, claim, unwatched):
    start()
    unwatched.begin(claim())

    def finish():
        unwatched.finish(Resolved(value="1"), celery_continues=False)

    with unwatched.lend(set()) as lent, ThreadPoolExecutor(1) as pool:
        pool.submit(leaving, finish).result(timeout=20)
    assert lent == []
    assert promises.get("p").is_settled


def test_a_lock_that_the_work_of_another_thread_needs_holds_up_nobody_else(ended):
    mine, other = ended("p", "q")
    gate = Gate()

    def lock_q():
        with transaction.atomic():
            sql.rows("SELECT id FROM flows_promise WHERE id = 'q' FOR UPDATE")
            gate.wait()

    backend = sql.ensured().info.backend_pid
    with beside(lock_q, gate):
        mine.flush_due([mine, other])
        assert [promises.get(promise_id).is_settled for promise_id in "pq"] == [True, False]
    other.flush()
    assert promises.get("q").is_settled
    assert sql.ensured().info.backend_pid == backend


def test_what_was_lent_is_taken_back_if_it_could_not_be_written(ended, monkeypatch):
    ledgers = ended("p", "q")
    with monkeypatch.context() as patched:
        patched.setattr(publish, "persist", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ledgers[0].flush_due(ledgers)
    ledgers[1].flush()
    assert [promises.get(promise_id).is_settled for promise_id in "pq"] == [False, True]
    ledgers[0].flush()
    assert promises.get("p").is_settled
