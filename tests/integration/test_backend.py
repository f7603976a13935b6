"""Results by Celery's own means: of promises from the table, of ordinary tasks as django-celery-results keeps them."""

import pytest
from celery import current_app, states
from celery.exceptions import NotRegistered
from celery.result import AsyncResult

from flows.domain.errors import PromiseRejected
from flows.domain.promise import describe_error
from flows.engine.decision import Rejected
from flows.store import outcomes
from flows.store.outcomes import Outcome
from tests.integration.conftest import resolve


def test_an_async_result_reads_the_promise(start, claim):
    start()
    assert AsyncResult("p").state == states.PENDING
    resolve(claim(), '{"a":1}')
    assert AsyncResult("p").state == states.SUCCESS
    assert AsyncResult("p").get(timeout=5) == {"a": 1}


def test_an_async_result_raises_what_the_promise_was_rejected_with(start, claim):
    start()
    error = ValueError("boom")
    outcomes.commit([Outcome(claim=claim(), decision=Rejected(error=describe_error(error), exception=error))])
    with pytest.raises(PromiseRejected, match="ValueError: boom"):
        AsyncResult("p").get(timeout=5)


def test_ordinary_results_are_kept_as_ever(transactional_db):
    backend = current_app.backend
    backend.store_result("task-1", {"x": 1}, states.SUCCESS)
    assert AsyncResult("task-1").get(timeout=5) == {"x": 1}


def test_an_unknown_name_fails_an_ordinary_task_and_leaves_a_promise_pending(start):
    start()
    for task_id in ("p", "task-1"):
        current_app.backend.mark_as_failure(task_id, NotRegistered("nobody"))
    assert AsyncResult("p").state == states.PENDING
    assert AsyncResult("task-1").state == states.FAILURE
