import logging
from datetime import timedelta

import pytest

import flows
from flows.domain.promise import Kind
from flows.engine.decision import Failed, Rejected, Resolved, SetAside, Suspended
from flows.store import promises, sweeps
from flows.store.outcomes import Outcome
from flows.worker import publish
from flows.worker.drain import drain
from tests.integration.conftest import call, expire_lease

ERROR = {"type": "ValueError", "message": "a payload", "traceback": "a payload", "cause": None}


@pytest.fixture
def told(caplog):
    """The changes that were logged since the last look: what, of which promise, at which level."""
    caplog.set_level(logging.DEBUG, "flows.changes")

    def told():
        found = [
            (record.change, record.promise_id, record.levelname)
            for record in caplog.records
            if record.name == "flows.changes"
        ]
        caplog.clear()
        return found

    return told


def end(claim, decision, *calls):
    batch = [Outcome(claim=claim, calls=calls, decision=decision)]
    publish.send(batch, publish.persist(batch))


def test_each_end_of_an_attempt_is_told_with_its_call(start, claim, told, caplog):
    start()
    first = claim()
    end(first, Suspended(awaits=("p.0",)), call(first, 0, Kind.EXTERNAL))
    flows.resolve("p.0", "a payload")
    second = claim()
    end(second, Failed(error=ERROR, exception=ValueError(), delay=timedelta(0), failures=1))
    end(claim(), Rejected(error=ERROR, exception=ValueError()))
    assert "a payload" not in caplog.text
    record = next(record for record in caplog.records if getattr(record, "change", "") == "failed")
    assert (record.group, record.function, record.attempt, record.error_type) == ("g", "f", 2, "ValueError")
    assert told() == [
        ("started", "p", "INFO"),
        ("suspended", "p", "DEBUG"),
        ("resolved", "p.0", "INFO"),
        ("failed", "p", "INFO"),
        ("rejected", "p", "INFO"),
    ]


def test_what_was_set_aside_and_retried_is_told(start, claim, told):
    start()
    end(claim(), SetAside(note="the code changed"))
    flows.retry("p")
    assert told()[1:] == [("aside", "p", "ERROR"), ("retried", "p", "INFO")]


def test_lost_released_and_fenced_attempts_are_told(start, claim, holder, told, caplog):
    start()
    first = claim()
    expire_lease(holder)
    sweeps.recover()
    assert (caplog.records[-1].node, caplog.records[-1].attempt) == ("node@test", 1)
    claim()
    flows.release("p")
    end(first, Resolved(value="1"))
    assert told()[1:] == [("lost", "p", "WARNING"), ("released", "p", "WARNING"), ("fenced", "p", "WARNING")]


def test_cancels_and_timeouts_are_told(start, told):
    start("p")
    flows.cancel("p")
    start("q", timeout=timedelta(microseconds=1))
    start("r", timeout=timedelta(microseconds=1))
    assert promises.get("q").state == "timedout"
    sweeps.expire_due()
    changes = [each for each in told() if each[0] != "started"]
    assert changes == [("canceled", "p", "INFO"), ("timedout", "q", "INFO"), ("timedout", "r", "INFO")]


def test_an_outcome_that_cannot_be_written_is_told_as_set_aside(start, claim, told):
    start("p")
    start("p.0")
    parent = claim("p")
    end(parent, Suspended(awaits=("p.0",)), call(parent, 0))
    assert told()[-1] == ("aside", "p", "ERROR")


def test_a_worker_tells_of_claims_only_to_those_who_listen(worker, told, caplog):
    flows.begin_rpc("p", "baz", target="service-c")
    drain("service-c")
    assert told() == [("started", "p", "INFO"), ("claimed", "p", "DEBUG"), ("resolved", "p", "INFO")]
    caplog.set_level(logging.WARNING, "flows.changes")
    flows.begin_rpc("q", "baz", target="service-c")
    drain("service-c")
    assert told() == []
