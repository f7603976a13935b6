"""The example, and what may befall it, on real workers that share the database of the tests."""

import os
import signal
import subprocess
import sys
import time

import pytest
import redis
from django.db import connection

import flows
from flows.models import Attempt, Node, Promise
from local.process import ROOT
from local.stack import Stack
from tests.orders.faulty import BOUNDARIES, linger, pay_in_parts, pay_with_a_crash
from tests.orders.flows import Order, fulfil, reserve
from tests.orders.models import Payment
from tests.waiting import wait_until

PROCFILE = ROOT / "tests" / "orders" / "Procfile"


@pytest.fixture(scope="module")
def running(environ, tmp_path_factory, django_db_blocker):
    counts = {"worker-orders": 2, "worker-suppliers": 2}
    with Stack(environ, folder=tmp_path_factory.mktemp("orders"), counts=counts, procfile=PROCFILE) as running:
        yield running.wait_ready()
    # What their last beats wrote would be found by the tests that come after.
    with django_db_blocker.unblock():
        Node.objects.all().delete()
        connection.close()


@pytest.fixture
def workers(running, transactional_db):
    # Nodes whose rows the last test's end has removed, too, come back with their next beat.
    wait_until(lambda: Node.objects.count() == 4)
    return running


def begin(order_id, *items):
    return flows.begin_rpc(order_id, fulfil, Order(id=order_id, items=list(items), amount=5))


def approval_of(order_id):
    return wait_until(lambda: Promise.objects.filter(parent=order_id, kind="external").first()).id


def payments(order_id):
    return list(Payment.objects.filter(order=order_id).values_list("amount", flat=True).order_by("id"))


def outcomes(promise_id):
    return list(Attempt.objects.filter(promise=promise_id).order_by("fence").values_list("outcome", flat=True))


def test_an_approved_order_is_paid_and_shipped(workers):
    order = begin("good", "apple", "pear")
    assert flows.resolve(approval_of("good"), "yes")
    assert order.result(20) == "good shipped: one apple, one pear"
    assert payments("good") == [5]
    # The timer that lost the race does not outlive it.
    assert set(Promise.objects.filter(kind="timer").values_list("state", flat=True)) == {"canceled"}


def test_an_order_that_cannot_be_delivered_is_paid_back(workers):
    order = begin("odd", "apple", "unicorn")
    flows.resolve(approval_of("odd"))
    assert order.result(20) == "paid back: no unicorn in stock"
    assert payments("odd") == [5, -5]


def test_an_order_that_is_not_approved_costs_nothing(workers):
    order = begin("bad", "apple")
    flows.reject(approval_of("bad"), "too dear")
    assert order.result(20) == "not approved"
    assert payments("bad") == []


def test_an_order_waits_for_its_approval_while_every_worker_is_killed(workers):
    order = begin("patient", "apple")
    approval = approval_of("patient")
    wait_until(lambda: Promise.objects.filter(id="patient", phase="suspended").exists())
    workers.kill("worker-orders")
    flows.resolve(approval)
    workers.wait_ready()
    assert order.result(20) == "patient shipped: one apple"
    assert payments("patient") == [5]


def test_a_function_that_goes_on_where_it_waits_outlives_its_process(workers):
    def has_gone_on():
        # In this order: what is begun in between does not count.
        ended = len(outcomes("parts"))
        return len(payments("parts begun")) < ended

    order = flows.begin_rpc("parts", pay_in_parts, "parts", 60)
    wait_until(has_gone_on)
    workers.kill("worker-orders")
    workers.wait_ready()
    assert order.result(30) == 60
    assert payments("parts") == [1] * 60
    assert set(outcomes("parts")) <= {"suspended", "lost", "resolved"}


def test_an_atomic_step_happens_once_wherever_its_process_is_killed(workers):
    orders = {boundary: flows.begin_rpc(boundary.replace(" ", "-"), pay_with_a_crash, boundary, boundary)
              for boundary in BOUNDARIES}  # fmt: skip
    for boundary, order in orders.items():
        assert order.result(60) is None
        assert (boundary, payments(boundary)) == (boundary, [5])
        assert (boundary, outcomes(order.id)) == (boundary, ["lost", "resolved"])


@pytest.mark.parametrize(("dies", "exists"), [("before", False), ("after", True)])
def test_a_flow_starts_if_and_only_if_its_transaction_commits(workers, environ, dies, exists):
    """Also when the process is killed before it could send the message."""
    script = f"""
import os, signal, django
django.setup()
from django.db import transaction
import flows
from tests.orders.models import pay
def die():
    os.kill(os.getpid(), signal.SIGKILL)
with transaction.atomic():
    transaction.on_commit(die)
    pay("order", 5)
    flows.begin_rpc("order", "reserve", "apple", target="suppliers")
    if {dies!r} == "before":
        die()
"""
    died = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, **environ}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert Promise.objects.filter(id="order").exists() is exists
    assert payments("order") == [5] * exists
    if exists:
        assert flows.Handle("order").result(20) == "one apple"


def test_a_call_to_one_node_is_run_by_that_node(workers):
    for node in Node.objects.filter(name__startswith="suppliers"):
        for name, address in (("pid", node.pid), ("name", node.name)):
            handles = [
                flows.begin_rpc(f"{node.pid}-{name}-{n}", reserve, "apple", target=f"poll://uni@suppliers/{address}")
                for n in range(5)
            ]
            assert [handle.result(20) for handle in handles] == ["one apple"] * 5
            ran = Attempt.objects.filter(promise__in=[handle.id for handle in handles])
            assert set(ran.values_list("node", flat=True)) == {node.pk}


def test_a_call_to_a_node_that_is_gone_waits_with_the_reason(workers):
    handle = flows.begin_rpc("lost", reserve, "apple", target="poll://uni@suppliers/1")
    with pytest.raises(flows.ResultTimeout):
        handle.result(0.1)
    Promise.objects.filter(id="lost").update(ready_at=Promise.objects.get(id="lost").created_at.replace(year=2020))
    wait_until(lambda: "no live node 1 serves group suppliers" in flows.get("lost").note)


def test_a_call_of_ten_thousand_costs_no_more_than_one_of_a_thousand(workers):
    def seconds_per_call(count):
        name = f"wide-{count}"
        order = begin(name, *["apple"] * count)
        flows.resolve(approval_of(name))
        began = time.monotonic()
        assert order.result(100).count("one apple") == count
        return (time.monotonic() - began) / count

    thousand = sorted(seconds_per_call(1_000 + n) for n in range(3))[1]
    assert seconds_per_call(10_000) <= 2 * thousand


def test_a_long_backlog_leaves_few_messages_in_the_queue(workers, environ):
    lengths = []
    with redis.Redis.from_url(environ["REDIS_URL"]) as client:

        def is_worked_off():
            lengths.append(client.llen("suppliers"))
            return not Promise.objects.filter(function="linger", state="pending").exists()

        for number in range(30):
            flows.begin_rpc(f"backlog-{number}", linger, 0.4)
        wait_until(is_worked_off, within_s=30)
    # Each drain leaves one behind, and runs two calls at the least.
    assert max(lengths) <= 15


def test_a_node_that_stops_hands_back_what_takes_too_long(workers):
    handles = [flows.begin_rpc(f"slow-{n}", linger, 8) for n in range(2)]
    wait_until(lambda: Promise.objects.filter(function="linger", phase="claimed").count() == 2)
    stopped = Node.objects.get(name__startswith="suppliers.2")
    (held,) = Promise.objects.filter(node=stopped)
    began = time.monotonic()
    workers.scale("worker-suppliers", 1)
    assert time.monotonic() - began < 7
    workers.scale("worker-suppliers", 2)
    assert flows.Handle(held.id).result(20) == 2
    assert outcomes(held.id) == ["lost", "resolved"]
    assert Promise.objects.get(id=held.id).losses == 0
    # The other one had the time that it took.
    assert sorted(handle.result(20) for handle in handles) == [1, 2]
