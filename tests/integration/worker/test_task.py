"""A message has its promise run and its group drained, also if PostgreSQL has ended this process's session."""

from typing import Any

from celery import current_app

import flows
from flows.domain.promise import State
from flows.store import promises
from flows.worker import process
from tests.integration.worker.conftest import end_session


def test_the_promise_that_the_message_names_is_run(worker):
    flows.begin_rpc("p", "baz", target="service-c")
    process.holder()
    end_session()
    current_app.tasks["service-c.baz"].apply(task_id="p")
    assert promises.get("p").state is State.RESOLVED


def test_the_group_is_drained_after_an_attempt_that_is_tried_again(worker):
    for promise_id in ("p", "q"):
        flows.begin_rpc(promise_id, "fall_once", target="suppliers")
    current_app.tasks["suppliers.fall_once"].apply(task_id="p")
    assert [len(promises.attempts(promise_id)) for promise_id in ("p", "q")] == [1, 1]


def test_the_group_is_drained(worker):
    flows.begin_rpc("p", "baz", target="service-c")
    process.holder()
    task: Any = current_app.tasks["service-c.baz"]
    task.push_request(drains=True, looks=True)
    try:
        end_session()
        task.after_return("SUCCESS", None, "q", (), {}, None)
    finally:
        task.pop_request()
    assert promises.get("p").state is State.RESOLVED
