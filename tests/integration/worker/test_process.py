from django.db import connection

from flows.store import claims, sweeps
from flows.store.claims import ReadyRef
from flows.worker import process

NAMED = ReadyRef(id="p", group="g", function="f")


def test_a_claim_whose_answer_was_lost_with_its_connection_is_recovered(worker, start):
    start()
    claims.claim_named(NAMED, process.holder())
    connection.close()
    assert process.holder().session
    assert [each.id for each in sweeps.recover().ready] == ["p"]


def test_a_claim_in_hand_outlives_a_reconnect(worker, start):
    start()
    claim = claims.claim_named(NAMED, process.holder())
    assert claim is not None
    process.keep([claim])
    connection.close()
    connection.ensure_connection()
    assert sweeps.recover().ready == []
