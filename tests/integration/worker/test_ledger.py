import threading

import pytest
from django.db import connection, transaction

from flows.domain.errors import AttemptFenced, MisuseError
from flows.engine.decision import Resolved
from flows.store import promises, sql
from flows.worker.ledger import Ledger
from tests.acceptance.conftest import wait_until
from tests.integration.conftest import call


@pytest.fixture
def ledger(queue_length):
    return Ledger()


def test_what_a_running_attempt_did_is_committed_while_it_runs(start, claim, ledger):
    start()
    running = claim()
    ledger.begin(running)
    ledger.record(call(running, 0))
    wait_until(lambda: promises.children("p", 10) == ["p.0"], within_s=5)


def test_what_was_finished_is_committed_while_the_next_attempt_runs(start, claim, ledger):
    start("p")
    start("q")
    first, second = claim("p"), claim("q")
    ledger.begin(first)
    ledger.defer(Resolved(value="1"))
    ledger.begin(second)
    wait_until(lambda: promises.get("p").is_settled, within_s=5)
    assert not promises.get("q").is_settled


def test_an_attempt_that_lost_its_claim_learns_of_it_at_its_next_call(start, claim, ledger):
    start()
    running = claim()
    ledger.begin(running)
    sql.rows("UPDATE flows_promise SET phase = 'ready', node_id = NULL, session = NULL")
    ledger.record(call(running, 0))
    wait_until(lambda: ledger.due_at() is None, within_s=5)
    with pytest.raises(AttemptFenced):
        ledger.record(call(running, 1))
    assert promises.children("p", 10) == []
    assert ledger.finish(Resolved(value="1"), celery_continues=False) is None


def test_zero_commits_each_call_on_its_own(start, claim, ledger, settings):
    from datetime import timedelta

    settings.FLOWS = settings.FLOWS | {"COMMIT_WITHIN": timedelta(0)}
    start()
    running = claim()
    ledger.begin(running)
    ledger.record(call(running, 0))
    assert promises.children("p", 10) == ["p.0"]


def test_two_threads_never_commit_the_same_work(start, claim, ledger):
    for number in range(20):
        start(f"p{number}")
    taken = [claim(f"p{number}") for number in range(20)]
    stop = threading.Event()

    def flush_all_the_time():
        while not stop.is_set():
            ledger.flush()
        connection.close()

    other = threading.Thread(target=flush_all_the_time)
    other.start()
    try:
        for each in taken:
            ledger.begin(each)
            ledger.defer(Resolved(value="1"))
        ledger.flush()
    finally:
        stop.set()
        other.join()
    assert sql.rows("SELECT outcome, count(*) FROM flows_attempt GROUP BY 1") == [{"outcome": "resolved", "count": 20}]


def test_work_that_could_not_be_written_is_kept(start, claim, ledger, monkeypatch):
    start()
    ledger.begin(claim())
    with monkeypatch.context() as patched:
        patched.setattr("flows.worker.publish.outcomes.commit", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ledger.finish(Resolved(value="1"), celery_continues=False)
    ledger.flush()
    assert promises.get("p").value == 1


def test_an_operation_inside_a_transaction_of_user_code_is_refused(start, claim, ledger):
    start()
    running = claim()
    ledger.begin(running)
    with transaction.atomic(), pytest.raises(MisuseError, match="ctx.run"):
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
