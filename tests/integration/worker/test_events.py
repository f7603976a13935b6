"""What those who watch, like Flower, hear of drained attempts."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import current_app

from flows.engine.decision import Resolved
from flows.worker import process
from flows.worker.events import Events
from tests.waiting import wait_until


@pytest.fixture
def run(broker):
    """Tell of one attempt, as a drain does of a batch."""
    process.set_sends_events(enabled=True)

    def tell(promise_id):
        events = Events()
        events.started(promise_id, "service-c.baz")
        events.ended(promise_id, Resolved(value="1"), 0.25)
        events.publish()

    yield tell
    process.set_sends_events(enabled=False)


@pytest.fixture
def heard(run):
    """What is heard of a promise, by who listens to all events."""
    found: list[dict[str, Any]] = []

    def of(promise_id):
        return [event for event in found if event["uuid"] == promise_id]

    def of_another():
        run("another")
        return of("another")

    with current_app.connection_for_read() as connection, ThreadPoolExecutor(1) as pool:
        receiver = current_app.events.Receiver(connection, handlers={"*": found.append})
        pool.submit(receiver.capture, wakeup=False)
        try:
            wait_until(of_another)
            yield of
        finally:
            receiver.should_stop = True


def test_a_drained_attempt_is_told_as_celery_tells_of_a_task(run, heard):
    run("p")
    received, started, succeeded = wait_until(lambda: len(heard("p")) == 3 and heard("p"))
    assert (received["type"], received["name"]) == ("task-received", "service-c.baz")
    assert started["type"] == "task-started"
    assert (succeeded["type"], succeeded["result"], succeeded["runtime"]) == ("task-succeeded", "1", 0.25)


def test_a_batch_is_told_also_if_the_connection_was_lost_since_the_last(run, heard, client):
    client.client_kill_filter(_type="normal", skipme=True)
    run("p")
    wait_until(lambda: len(heard("p")) == 3)
