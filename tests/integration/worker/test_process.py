import threading

import pytest
from celery.worker import state
from django.db import connection

from flows.store import claims, sql, sweeps
from flows.store.claims import ReadyRef
from flows.worker import process
from tests.waiting import wait_until

NAMED = ReadyRef(id="p", group="g", function="f")


@pytest.mark.parametrize("name", ["should_stop", "should_terminate"])
def test_an_orderly_stop_of_celery_is_a_stop(monkeypatch, name):
    assert not process.is_stopping()
    monkeypatch.setattr(state, name, 0)
    assert process.is_stopping()


def test_a_claim_outlives_what_user_code_does_with_its_connection(worker, start):
    start()
    claims.claim_named(NAMED, process.holder())
    connection.close()
    assert sweeps.recover().ready == []


def test_the_claims_of_a_retired_session_are_recovered(worker, start):
    start()
    before = process.holder()
    claims.claim_named(NAMED, before)
    process.retire()
    assert wait_until(lambda: sweeps.recover().ready, within_s=5)[0].id == "p"
    assert process.holder() != before


def test_a_session_ends_with_its_thread(worker, start):
    start()

    def claim_and_end():
        assert claims.claim_named(NAMED, process.holder())[0] is not None
        connection.close()

    thread = threading.Thread(target=claim_and_end)
    thread.start()
    thread.join()
    wait_until(lambda: session_locks() == 0, within_s=5)
    assert sweeps.recover().ready[0].id == "p"


def test_the_lock_is_back_soon_after_postgresql_was_restarted(worker, start, servers):
    start()
    claims.claim_named(NAMED, process.holder())
    assert session_locks() == 1
    servers.postgres.restart()
    connection.close()
    wait_until(lambda: session_locks() == 1, within_s=5)
    renew_leases()  # a slow restart outlasts them, which is another reason to take a claim back
    assert sweeps.recover().ready == []


def session_locks():
    return sql.rows("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")[0]["count"]


def renew_leases():
    sql.rows("UPDATE flows_node SET lease_until = now() + interval '1 minute'")
