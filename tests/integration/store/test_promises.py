from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction

from flows.domain.errors import PromiseConflict, PromiseNotFound
from flows.domain.promise import State
from flows.store import promises
from flows.store.promises import Start


def a_call(promise_id="p", function="f", digest="d"):
    return Start(id=promise_id, group="g", function=function, args="[]", digest=digest, timeout=timedelta(hours=1))


def test_starting_again_finds_the_same_promise(transactional_db):
    assert promises.start(a_call())
    assert not promises.start(a_call())


@pytest.mark.parametrize("other", [{"function": "other"}, {"digest": "other"}], ids=str)
def test_the_same_id_for_another_call_is_a_conflict_and_changes_nothing(transactional_db, other):
    promises.start(a_call())
    before = promises.get("p")
    with pytest.raises(PromiseConflict, match="use another id, or make the same call"):
        promises.start(a_call(**other))
    assert promises.get("p") == before


def test_of_many_concurrent_starts_one_is_new(transactional_db):
    def begin(_):
        try:
            return promises.start(a_call())
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as pool:
        assert sorted(pool.map(begin, range(10))) == [False] * 9 + [True]


def test_a_start_is_undone_with_the_callers_transaction(transactional_db):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        promises.start(a_call())
        raise ZeroDivisionError
    with pytest.raises(PromiseNotFound, match="no promise 'p'"):
        promises.get("p")


def test_whoever_reads_a_promise_past_its_deadline_settles_it(transactional_db):
    promises.start(a_call())
    with connection.cursor() as cursor:
        cursor.execute("UPDATE flows_promise SET deadline_at = now() - interval '1 hour'")
    promise = promises.get("p")
    assert promise.state is State.TIMEDOUT
    assert promise.settled_at == promise.deadline_at
    assert promises.get("p") == promise
