"""A message is taken though PostgreSQL has ended this process's session since the last one."""

from contextlib import closing
from typing import Any

import pytest
from celery import current_app
from django.db import connection

import flows
from flows.domain.promise import State
from flows.store import promises
from flows.worker import process


@pytest.fixture
def end_session(worker):
    """End the session in which this thread claims."""

    def end_session():
        process.holder()
        connection.ensure_connection()
        with closing(connection.copy()) as other, other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.connection.info.backend_pid])

    return end_session


def test_the_promise_that_the_message_names_is_run(end_session):
    flows.begin_rpc("p", "baz", target="service-c")
    end_session()
    current_app.tasks["service-c.baz"].apply(task_id="p")
    assert promises.get("p").state is State.RESOLVED


def test_the_group_is_drained(end_session):
    flows.begin_rpc("p", "baz", target="service-c")
    task: Any = current_app.tasks["service-c.baz"]
    task.push_request(drains=True, looks=True)
    try:
        end_session()
        task.after_return("SUCCESS", None, "q", (), {}, None)
    finally:
        task.pop_request()
    assert promises.get("p").state is State.RESOLVED
