from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest
from django.db import connection, transaction

from flows.domain.promise import Kind, State
from flows.engine.decision import Rejected
from flows.models import Attempt, Promise
from flows.store import cancel, outcomes, purges, retries, sql
from flows.store.outcomes import Outcome
from flows.store.purges import Purged
from tests.integration.conftest import call, resolve, suspend
from tests.waiting import wait_until

ALL = tuple(state for state in State if state is not State.PENDING)
BOOM = {"type": "ValueError", "message": "boom", "traceback": "", "cause": None}


def purge(older_than=timedelta(0), states=ALL, limit=100) -> Purged:
    return purges.purge(older_than=older_than, states=states, limit=limit)


def left() -> list[str]:
    return list(Promise.objects.order_by("id").values_list("id", flat=True))


def reject(claim):
    outcomes.commit([Outcome(claim=claim, decision=Rejected(error=BOOM, exception=ValueError()))])


@pytest.fixture
def tree(start, claim):
    """A flow p that has made a call and a detached one, and waits for the call."""
    start()
    parent = claim()
    suspend(parent, call(parent, 0), call(parent, 1, Kind.DETACHED), awaits=("p.0",))


@pytest.fixture
def elsewhere(transactional_db):
    """Do something in a transaction of another connection, and keep that open until told to commit it."""
    done, commit = Event(), Event()

    def act(something: Callable[[], object]) -> None:
        try:
            with transaction.atomic():
                something()
                done.set()
                commit.wait(10)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:

        def begin(something: Callable[[], object]) -> Callable[[], None]:
            acting = pool.submit(act, something)
            assert done.wait(10)

            def end() -> None:
                commit.set()
                acting.result()

            return end

        yield begin
        commit.set()


def test_a_tree_goes_with_its_attempts_and_without_what_is_detached(tree, claim):
    resolve(claim("p.0", "child"))
    resolve(claim("p"))
    assert purge() == Purged(flows=1, promises=2)
    assert left() == ["p.1"]
    assert not Attempt.objects.exists()


def test_what_is_younger_or_in_another_state_stays(start, claim):
    for promise_id in ("young", "old", "canceled"):
        start(promise_id)
    resolve(claim("young"))
    resolve(claim("old"))
    cancel.cancel_tree("canceled")
    sql.rows("UPDATE flows_promise SET settled_at = now() - interval '2 days' WHERE id <> 'young'")
    assert purges.count_old(older_than=timedelta(days=1), states=ALL, limit=10) == 2
    assert purge(timedelta(days=1), states=(State.RESOLVED,)).flows == 1
    assert left() == ["canceled", "young"]


def test_no_more_flows_go_than_asked_for_and_the_oldest_first(start, claim):
    for promise_id in ("first", "second", "third"):
        start(promise_id)
        resolve(claim(promise_id))
    assert purge(limit=2).flows == 2
    assert left() == ["third"]


def test_a_tree_with_something_pending_stays_whole(tree, claim):
    sql.rows("UPDATE flows_promise SET state = 'canceled', phase = '', settled_at = now() WHERE id = 'p'")
    assert purge() == purges.purge_tree("p") == Purged(flows=0, promises=0)
    assert left() == ["p", "p.0", "p.1"]


def test_a_detached_call_stays_while_its_caller_may_be_replayed(tree, claim):
    resolve(claim("p.1", "child"))
    assert purge().flows == purges.purge_tree("p.1").flows == 0
    resolve(claim("p.0", "child"))
    reject(claim("p"))
    assert purge(states=(State.RESOLVED,)).flows == 0
    assert purge() == Purged(flows=1, promises=2)
    assert purge() == Purged(flows=1, promises=1)
    assert left() == []


def test_what_is_being_reopened_stays(start, claim, elsewhere):
    start()
    reject(claim())
    commit = elsewhere(lambda: retries.reopen("p"))
    assert purge().flows == 0
    commit()
    assert purge().flows == 0
    assert left() == ["p"]


def test_what_is_being_purged_is_not_reopened(start, claim, elsewhere):
    start()
    reject(claim())
    commit = elsewhere(lambda: purges.purge_tree("p"))
    with ThreadPoolExecutor(1) as pool:
        reopening = pool.submit(_reopen)
        wait_until(lambda: sql.rows("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"), within_s=10)
        commit()
        assert reopening.result() == []
    assert left() == []


def _reopen():
    try:
        return retries.reopen("p")
    finally:
        connection.close()


def test_a_purged_promise_that_is_still_run_leaves_nothing(start, claim):
    start()
    running = claim()
    cancel.cancel_tree("p")
    assert purges.purge_tree("p").promises == 1
    assert resolve(running) is None
    assert (left(), Attempt.objects.count()) == ([], 0)


def test_an_id_may_be_used_again(start, claim):
    start()
    resolve(claim())
    purges.purge_tree("p")
    start("p", "other arguments")
    assert claim().invocation.args == ["other arguments"]


def test_a_purge_reads_no_more_than_it_deletes(start, claim, holder):
    sql.rows(
        """INSERT INTO flows_promise (id, root_id, "position", kind, "group", function, args, digest, state, value,
            phase, note, continuation, fence, failures, losses, sends, deadline_at, settled_at)
        SELECT 'new-' || n, 'new-' || n, 0, 'root', 'g', 'f', '[]', '', 'resolved', '1', '', '', '', 1, 0, 0, 0,
            now(), now() FROM generate_series(1, 20000) AS n"""
    )
    sql.rows("ANALYZE flows_promise, flows_attempt")
    params = {"older_than": timedelta(days=1), "states": list(ALL), "limit": 100}
    plan = "\n".join(row["QUERY PLAN"] for row in sql.rows("EXPLAIN " + purges.PURGE, **params))
    assert "Seq Scan on flows_promise" not in plan
