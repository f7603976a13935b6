from datetime import timedelta

import pytest

from flows.domain.errors import PromiseConflict
from flows.domain.ids import detached_id
from flows.domain.promise import Kind, Phase, State
from flows.engine.decision import Resolved
from flows.models import Promise
from flows.store import outcomes, promises, reruns
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, resolve, suspend


@pytest.fixture
def made(start, claim):
    """A flow p that awaits its third call: a step and a call have settled, a detached one has not."""
    start("p", "argument")
    parent = claim()
    step = call(parent, 0, Kind.RUN, state=State.RESOLVED, value="7")
    detached = call(parent, 2, Kind.DETACHED)
    suspend(parent, step, call(parent, 1), detached, call(parent, 3), awaits=("p.1", "p.3"))
    resolve(claim("p.1", "child"), "8")


def checkpoints(promise_id, claim):
    return {c.position: (c.id, c.state.value, c.value) for c in claim(promise_id).invocation.checkpoints}


def test_the_same_call_starts_from_its_top(made, claim):
    assert [ready.id for ready in reruns.run_again("p", "q")] == ["q"]
    invocation = claim("q").invocation
    assert (invocation.args, invocation.root_id, invocation.checkpoints) == (["argument"], "q", ())


def test_it_has_the_time_and_the_digest_of_the_first(made):
    reruns.run_again("p", "q")
    first, second = Promise.objects.filter(id__in=["p", "q"]).order_by("id")
    difference = (second.deadline_at - second.created_at) - (first.deadline_at - first.created_at)
    assert abs(difference) < timedelta(seconds=1)
    assert (second.digest, second.kind, second.fence) == (first.digest, Kind.ROOT, 0)


def test_what_settled_before_the_step_is_taken_over(made, claim):
    reruns.run_again("p", "q", from_step=2)
    assert checkpoints("q", claim) == {0: ("q.0", "resolved", "7"), 1: ("q.1", "resolved", "8")}


def test_what_is_pending_is_made_again_but_no_detached_call_starts_twice(made, claim):
    reruns.run_again("p", "q", from_step=4)
    own = detached_id("q", "q", 2)
    assert checkpoints("q", claim) == {
        0: ("q.0", "resolved", "7"),
        1: ("q.1", "resolved", "8"),
        2: (own, "canceled", None),
    }
    copy = promises.get(own)
    assert (copy.note, copy.phase, copy.root_id) == ("runs as p.2", Phase.NONE, own)


def test_a_new_id_that_is_taken_changes_nothing(made, start):
    start("q")
    with pytest.raises(PromiseConflict, match="'q' exists already"):
        reruns.run_again("p", "q", from_step=2)
    assert not Promise.objects.filter(parent_id="q").exists()


def test_a_taken_id_of_a_copied_call_leaves_nothing_half_written(made, start):
    start("q.1")
    with pytest.raises(PromiseConflict, match="below 'q' is taken"):
        reruns.run_again("p", "q", from_step=2)
    assert not Promise.objects.filter(id__in=["q", "q.0"]).exists()


def test_the_first_flow_is_left_alone(made, claim):
    before = list(Promise.objects.filter(id__startswith="p").order_by("id").values())
    reruns.run_again("p", "q", from_step=4)
    outcomes.commit([Outcome(claim=claim("q"), decision=Resolved(value="1"))])
    assert list(Promise.objects.filter(id__startswith="p").order_by("id").values()) == before
