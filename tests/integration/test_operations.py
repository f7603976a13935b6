import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import pytest
from celery.signals import task_revoked
from django.db import transaction

import flows
from flows.domain.promise import Kind, State
from flows.engine.decision import SetAside
from flows.listener import listener
from flows.models import Promise
from flows.store import outcomes, promises
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, resolve, suspend
from tests.waiting import wait_until

TARGET = "poll://any@service-a"


def begin(promise_id="p", function="foo", *args, target=TARGET, **options):
    return flows.begin_rpc(promise_id, function, *(args or ("foo",)), target=target, **options)


def test_a_start_is_sent_once_however_often_it_is_asked_for(transactional_db, queue_length):
    for _ in range(3):
        assert begin().id == "p"
    assert queue_length("service-a") == 1
    assert Promise.objects.get().function == "foo"


def test_a_start_in_a_transaction_is_sent_when_it_commits(transactional_db, queue_length):
    with transaction.atomic():
        begin()
        assert queue_length("service-a") == 0
    assert queue_length("service-a") == 1


def test_a_start_in_a_transaction_that_fails_never_was(transactional_db, queue_length):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        begin()
        raise ZeroDivisionError
    assert queue_length("service-a") == 0
    assert not Promise.objects.exists()


def test_a_broker_that_is_away_fails_no_start(transactional_db, queue_length, servers):
    servers.redis.kill()
    try:
        begin()
        assert promises.get("p").state == "pending"
    finally:
        servers.redis.start()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"promise_id": ""}, "id"),
        ({"promise_id": "x" * 256}, "id"),
        ({"promise_id": "no spaces"}, "id"),
        ({"promise_id": "-starts"}, "id"),
        ({"promise_id": None}, "id"),
        ({"function": "nonsense"}, "function"),
        ({"function": "not a name"}, "function"),
        ({"target": "poll://any@nowhere"}, "target"),
        ({"target": "poll://uni@service-a/1"}, "target"),
        ({"target": None}, "target"),
        ({"timeout": timedelta(0)}, "timeout"),
        ({"timeout": timedelta.max}, "timeout"),
    ],
    ids=str,
)
def test_bad_input_names_the_field_and_writes_nothing(transactional_db, options, field):
    with pytest.raises(flows.InvalidInputError) as raised:
        begin(**options)
    assert raised.value.field == field
    assert not Promise.objects.exists()


@pytest.mark.parametrize(
    ("args", "field"), [((object(),), "args[0]"), ((float("nan"),), "args[0]"), (("a", "b"), "args")], ids=str
)
def test_bad_arguments_name_the_culprit_and_write_nothing(transactional_db, args, field):
    with pytest.raises(flows.InvalidInputError) as raised:
        begin("p", "foo", *args)
    assert raised.value.field == field
    assert not Promise.objects.exists()


def test_an_id_of_255_characters_is_fine(transactional_db, queue_length):
    assert begin("x" * 255).state == "pending"


def test_a_result_that_is_not_there_in_time_says_so(transactional_db, queue_length):
    with pytest.raises(flows.ResultTimeout, match="still pending after 0.05 s"):
        begin().result(timeout=0.05)


def test_a_result_of_no_promise_says_so(transactional_db):
    with pytest.raises(flows.PromiseNotFound):
        flows.Handle("nobody").result(timeout=5)


def test_waiting_inside_a_transaction_is_refused(transactional_db, queue_length):
    with transaction.atomic(), pytest.raises(flows.MisuseError, match="after the block"):
        begin().result()


def test_all_who_wait_are_told_by_the_settling_transaction(start, claim, settings):
    settings.FLOWS = settings.FLOWS | {"POLL_EVERY": timedelta(hours=1)}
    start()
    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(flows.Handle("p").result, 10) for _ in range(3)]
        wait_until(lambda: len(listener()._waiting.get("p", ())) == 3 and not listener()._new)
        resolve(claim(), '{"a":1}')
        assert [result.result() for result in results] == [{"a": 1}] * 3


def test_a_coroutine_waits_too(start, claim):
    start()
    resolve(claim(), '{"a":1}')
    assert asyncio.run(flows.Handle("p").aresult(timeout=5)) == {"a": 1}


def test_cancel_wakes_the_parent(start, claim, queue_length):
    start()
    parent = claim()
    suspend(parent, call(parent, 0))
    assert flows.cancel("p.0") == 1
    assert promises.get("p").phase == "ready"


@pytest.mark.parametrize(("expired", "state"), [(False, "canceled"), (True, "pending")])
def test_a_revoked_task_is_a_canceled_promise_and_an_expired_message_is_not(start, queue_length, expired, state):
    start()
    request = SimpleNamespace(id="p")
    task_revoked.send(sender=None, request=request, terminated=False, signum=None, expired=expired)
    assert promises.get("p").state == state


def test_cancel_takes_the_tree_and_leaves_what_is_detached(start, claim, queue_length):
    start()
    parent = claim()
    suspend(parent, call(parent, 0), call(parent, 1, Kind.DETACHED), awaits=("p.0",))
    child = claim("p.0", "child")
    suspend(child, call(child, 0))
    assert flows.cancel("p") == 3
    assert flows.cancel("p") == 0
    states = {promise.id: promise.state for promise in promises.get_many(["p", "p.0", "p.0.0", "p.1"])}
    assert states == {"p": "canceled", "p.0": "canceled", "p.0.0": "canceled", "p.1": "pending"}
    assert resolve(child) is None
    with pytest.raises(flows.PromiseCanceled):
        flows.Handle("p").result(timeout=5)


def test_what_was_set_aside_can_be_taken_up_again_with_its_finished_calls(start, claim, queue_length):
    start()
    first = claim()
    step = call(first, 0, Kind.RUN, state=State.RESOLVED, value="7")
    outcomes.commit([Outcome(claim=first, calls=(step,), decision=SetAside(note="the code changed"))])
    assert flows.retry("p")
    assert not flows.retry("p")
    again = claim()
    assert again.invocation.checkpoints[0].value == 7
    assert promises.get("p").note == ""
    resolve(again)
    assert not flows.retry("p")
