"""What operators do with promises that have run, or hang."""

from datetime import timedelta

import pytest

import flows
from flows import operations, pollers
from flows.models import Promise
from flows.store import claims
from flows.store.claims import ReadyRef
from tests.integration.conftest import call, resolve, suspend


@pytest.fixture
def sent(transactional_db, queue_length):
    """A flow of a group with a queue, whose message has come; how many messages were sent for the group."""
    flows.begin_rpc("p", "foo", "foo", target="service-a")
    pollers.clear(["service-a.foo"])
    return lambda: queue_length("service-a")


def test_a_released_promise_is_sent_to_others(sent, holder):
    claims.claim_named(ReadyRef(id="p", group="service-a", function="foo"), holder)
    assert flows.release("p") is True
    assert sent() == 2
    assert flows.release("p") is False
    with pytest.raises(flows.PromiseNotFound):
        flows.release("nobody")


def test_a_flow_that_is_run_again_is_sent(sent, holder):
    claims.claim_named(ReadyRef(id="p", group="service-a", function="foo"), holder)
    assert flows.run_again("p", "q").id == "q"
    assert sent() == 2


@pytest.mark.parametrize(
    ("new_id", "from_step", "field"), [("no spaces", None, "new_id"), ("q", -1, "from_step"), ("q", "2", "from_step")]
)
def test_bad_input_is_refused_by_its_name(start, new_id, from_step, field):
    start()
    with pytest.raises(flows.InvalidInputError) as raised:
        flows.run_again("p", new_id, from_step=from_step)
    assert raised.value.field == field
    assert Promise.objects.count() == 1


def test_only_roots_run_again_and_only_flows_are_purged(start, claim):
    start()
    parent = claim()
    suspend(parent, call(parent, 0))
    with pytest.raises(flows.InvalidInputError, match="run its flow again instead"):
        flows.run_again("p.0", "q")
    with pytest.raises(flows.InvalidInputError, match="purge the flow instead: 'p'"):
        flows.purge_tree("p.0")


def test_a_pending_flow_is_not_purged(start):
    start()
    assert flows.purge_tree("p") == 0
    assert flows.cancel("p") == 1
    assert flows.purge_tree("p") == 1
    with pytest.raises(flows.PromiseNotFound):
        flows.purge_tree("p")


@pytest.fixture
def five(start, claim):
    for number in range(5):
        start(f"p{number}")
        resolve(claim(f"p{number}"))


def test_flows_are_purged_batch_by_batch_until_none_is_left(five):
    batches = operations.purge_batches(older_than=0, batch=2)
    assert [batch.flows for batch in batches] == [2, 2, 1]
    assert flows.purge(older_than=0) == 0


def test_a_purge_stops_at_its_limit(five):
    assert flows.purge(older_than=timedelta(days=1)) == 0
    assert flows.purge(older_than=0, limit=3, states=[flows.State.RESOLVED]) == 3
    assert Promise.objects.count() == 2


@pytest.mark.parametrize("states", ["pending", ["pending"], ["done"]])
def test_states_that_are_not_final_are_refused(five, states):
    with pytest.raises(flows.InvalidInputError, match="may be resolved, rejected, canceled, timedout"):
        flows.purge(older_than=0, states=states)
    assert Promise.objects.count() == 5
