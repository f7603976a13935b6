"""One worker process with one slot, which serves all groups of the await chain."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import current_app
from django.db import connection

import flows
from flows import ResultTimeout
from flows.models import Node, Promise
from flows.queues import read_queues
from local.stack import Stack
from tests.waiting import wait_until

GROUPS = ("service-a", "service-b", "service-c")
PROCFILE = f"worker: celery -A tests.celery_app worker -Q {','.join(GROUPS)} -n shared@%h -c 1 -l INFO\n"


@pytest.fixture(scope="module")
def running(environ, tmp_path_factory, django_db_blocker):
    folder = tmp_path_factory.mktemp("shared")
    procfile = folder / "Procfile"
    procfile.write_text(PROCFILE)
    with Stack(environ, folder=folder, procfile=procfile) as running:
        yield running.wait_ready()
    with django_db_blocker.unblock():
        Node.objects.all().delete()


@pytest.fixture
def begin(running, transactional_db):
    """Begin a chain; return its handle."""
    wait_until(lambda: Node.objects.count() == 1)
    return lambda promise_id: flows.begin_rpc(promise_id, "foo", "foo", target="service-a")


def test_a_chain_goes_through_its_groups_without_waiting_for_a_slot(begin):
    """Each of its four ways from group to group would take the 50 ms for which a drain waits in its own."""
    took_s = []
    for number in range(10):
        began = time.monotonic()
        assert begin(f"chain-{number}").result(20) == 3
        took_s.append(time.monotonic() - began)
    assert min(took_s) < 0.15


@pytest.fixture
def load(begin):
    """One chain after the other, until it is told to stop; returns how many there were."""
    stops = threading.Event()

    def run():
        try:
            for number in itertools.count():
                if stops.is_set():
                    return number
                begin(f"load-{number}").result(20)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run)
        stops.set()


def test_ordinary_tasks_have_their_turn_beside_chains_and_no_queue_grows(load):
    accumulate = current_app.tasks["celery.accumulate"]
    began = time.monotonic()
    for number in range(40):
        assert accumulate.apply_async((number,), queue=GROUPS[number % 3]).get(timeout=20, interval=0.01) == [number]
    took_s = time.monotonic() - began
    assert not load.done()
    # One that had to wait for the end of a drain each time would take a second.
    assert took_s / 40 < 0.25
    assert sum(read_queues(GROUPS).lengths.values()) <= 2 * len(GROUPS)


def test_a_queue_that_is_consumed_no_more_is_left_alone_until_it_is_again(begin, running):
    def has_stopped():
        try:
            begin(f"canceled-{time.monotonic_ns()}").result(1)
        except ResultTimeout:
            return True
        return False

    (name,) = Node.objects.values_list("name", flat=True)
    # A worker that has just started answers a little later than it works.
    wait_until(lambda: current_app.control.cancel_consumer("service-b", destination=[name], reply=True))
    wait_until(has_stopped, within_s=20)
    left = Promise.objects.get(phase="ready")
    assert (left.group, left.function) == ("service-b", "bar")
    assert current_app.control.add_consumer("service-b", destination=[name], reply=True)
    assert flows.Handle(left.root_id).result(20) == 3
