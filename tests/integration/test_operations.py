import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import pytest
from celery.signals import task_revoked
from django.db import transaction

import flows
from flows.domain.promise import Kind, State
from flows.engine.decision import Rejected, SetAside
from flows.listener import listener
from flows.models import Promise
from flows.store import outcomes, promises, sql
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, resolve, suspend
from tests.orders.flows import Order, fulfil
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
        ({"target": "poll://uni@service-a"}, "target"),
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
    ("args", "field"), [((object,), "args[0]"), ((float("nan"),), "args[0]"), (("a", "b"), "args")], ids=str
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
        results = [pool.submit(flows.Handle[object]("p").result, 10) for _ in range(3)]
        wait_until(lambda: len(listener()._waiting.get("p", ())) == 3 and not listener()._new)
        resolve(claim(), '{"a":1}')
        assert [result.result() for result in results] == [{"a": 1}] * 3


def test_more_callers_than_may_wait_are_told_at_once(start, claim, settings):
    settings.FLOWS = settings.FLOWS | {"MAX_WAITERS": 2}
    start()
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(flows.Handle[object]("p").result, 10) for _ in range(2)]
        wait_until(lambda: len(listener()._waiting.get("p", ())) == 2)
        with pytest.raises(flows.TooManyWaitersError, match="2 callers wait in this process already"):
            flows.Handle("p").result(10)
        resolve(claim())
        assert [result.result() for result in results] == [1, 1]
    assert flows.Handle("p").result(10) == 1


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
    assert again.invocation.checkpoints[0].value == "7"
    assert promises.get("p").note == ""
    resolve(again)
    assert not flows.retry("p")


class TestExternalPromises:
    @pytest.fixture
    def approval(self, start, claim):
        start()
        parent = claim()
        suspend(parent, call(parent, 0, Kind.EXTERNAL, function="approval"))
        return "p.0"

    def test_whoever_settles_wakes_the_flow(self, approval, claim):
        assert flows.resolve(approval, {"by": "me"}) is True
        (checkpoint,) = claim().invocation.checkpoints
        assert (checkpoint.state, checkpoint.value) == (State.RESOLVED, '{"by":"me"}')

    @pytest.mark.parametrize("error", ["too dear", ValueError("too dear")], ids=repr)
    def test_a_rejection_tells_why(self, approval, error):
        assert flows.reject(approval, error) is True
        with pytest.raises(flows.PromiseRejected, match="too dear"):
            flows.Handle(approval).result()

    def test_the_same_way_twice_is_fine(self, approval):
        assert [flows.resolve(approval, {"a": 1.0}) for _ in range(2)] == [True, False]

    def test_another_way_is_refused(self, approval):
        flows.resolve(approval, 1)
        for settle in (lambda: flows.resolve(approval, 2), lambda: flows.reject(approval, "no")):
            with pytest.raises(flows.PromiseConflict, match="resolved already"):
                settle()
        assert promises.get(approval).value == 1

    def test_after_the_deadline_it_is_too_late(self, approval):
        sql.rows("UPDATE flows_promise SET deadline_at = now() WHERE id = 'p.0'")
        with pytest.raises(flows.PromiseConflict, match="timedout already"):
            flows.resolve(approval, 1)

    def test_what_a_function_settles_is_refused(self, approval):
        with pytest.raises(flows.InvalidInputError, match="only what ctx.promise"):
            flows.resolve("p", 1)
        assert promises.get("p").state is State.PENDING

    def test_what_is_not_json_is_refused(self, approval):
        with pytest.raises(flows.NotJSONError):
            flows.resolve(approval, {1})
        assert promises.get(approval).state is State.PENDING

    def test_what_does_not_exist_is_told(self, approval):
        with pytest.raises(flows.PromiseNotFound):
            flows.resolve("nobody")

    def test_in_a_transaction_it_happens_when_that_commits(self, approval, queue_length):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            flows.resolve(approval, 1)
            raise ZeroDivisionError
        assert promises.get(approval).state is State.PENDING
        with transaction.atomic():
            flows.resolve(approval, 1)
        assert promises.get("p").phase == "ready"


def test_a_rejected_flow_gets_a_new_chance(start, claim):
    start()
    failed = Outcome(claim=claim(), decision=Rejected(error={"type": "E", "message": "no"}, exception=ValueError()))
    outcomes.commit([failed])
    assert flows.retry("p") is True
    resolve(claim(), "2")
    assert flows.Handle("p").result() == 2
    assert flows.retry("p") is False


def test_a_rejected_call_is_not_retried_behind_its_callers_back(start, claim):
    start()
    parent = claim()
    suspend(parent, call(parent, 0))
    failed = Rejected(error={"type": "E", "message": "no"}, exception=ValueError())
    outcomes.commit([Outcome(claim=claim("p.0", "child"), decision=failed)])
    with pytest.raises(flows.InvalidInputError, match="retry the flow instead: 'p'"):
        flows.retry("p.0")


def test_options_are_stored_with_the_call(transactional_db, queue_length):
    begin(retry=flows.Constant(5), tags={"customer": "7"}, timeout=timedelta(minutes=5))
    promise = Promise.objects.get()
    assert promise.retry == {"policy": "constant", "wait": 5.0, "max_attempts": 10, "non_retryable": []}
    assert promise.tags == flows.get("p").tags == {"customer": "7"}
    with pytest.raises(flows.InvalidInputError, match="colour: is no option"):
        begin("q", colour="red")


def test_a_function_itself_is_typed_end_to_end(transactional_db, queue_length):
    order = Order(id="o", items=["apple"], amount=5)
    handle = flows.begin_rpc("o", fulfil, order)
    assert flows.get("o").args == [{"id": "o", "items": ["apple"], "amount": 5}]
    assert flows.begin_rpc("o", "fulfil", {"amount": 5, "id": "o", "items": ["apple"]}, target="orders").id == handle.id
    with pytest.raises(flows.InvalidInputError, match=r"args\[0\]"):
        flows.begin_rpc("q", fulfil, {"id": "o"})  # type: ignore[arg-type]  # that is refused
