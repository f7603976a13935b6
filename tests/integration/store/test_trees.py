import pytest

from flows import PromiseNotFound
from flows.domain.promise import AttemptOutcome, Kind, Phase, State
from flows.engine.decision import Rejected
from flows.store import outcomes, sql
from flows.store.outcomes import Outcome
from flows.store.trees import read_tree
from tests.integration.conftest import call, resolve, suspend


@pytest.fixture
def a_tree(start, claim):
    start("p")
    parent = claim("p")
    suspend(parent, call(parent, 1), call(parent, 0), call(parent, 2, Kind.DETACHED), awaits=("p.0", "p.1"))
    child = claim("p.1", "child")
    suspend(child, call(child, 0))
    resolve(claim("p.0", "child"))


def test_a_tree_is_read_in_call_order_with_what_is_detached(a_tree):
    tree = read_tree("p")
    assert [each.id for each in tree.promises] == ["p", "p.0", "p.1", "p.1.0", "p.2"]
    assert [each.depth for each in tree.promises] == [0, 1, 1, 2, 1]
    assert tree.promises[-1].kind is Kind.DETACHED
    assert (tree.is_live, tree.is_cut) == (True, False)


def test_a_promise_says_where_it_stands(a_tree, claim):
    claim("p.1.0", "child")
    root, settled, suspended, running, detached = read_tree("p").promises
    assert (root.state, root.phase, root.is_awaited) == (State.PENDING, Phase.SUSPENDED, False)
    assert (settled.state, settled.is_awaited) == (State.RESOLVED, False)
    assert suspended.is_awaited
    assert (running.phase, running.node) == (Phase.CLAIMED, "node@test")
    assert (detached.phase, detached.is_awaited, detached.root_id) == (Phase.READY, False, detached.id)


def test_attempts_hang_on_their_promise(a_tree):
    root, settled, *_ = read_tree("p").promises
    (attempt,) = root.attempts
    assert (attempt.fence, attempt.outcome, attempt.node) == (1, AttemptOutcome.SUSPENDED, "node@test")
    assert attempt.started_at <= attempt.ended_at <= read_tree("p").now
    assert [each.outcome for each in settled.attempts] == [AttemptOutcome.RESOLVED]


def test_an_error_is_one_line(start, claim):
    start("p")
    error = {"type": "ValueError", "message": "two\nlines", "traceback": "long", "cause": None}
    outcomes.commit([Outcome(claim=claim("p"), decision=Rejected(error=error, exception=ValueError()))])
    (promise,) = read_tree("p").promises
    assert promise.error == promise.attempts[0].error == "ValueError: two lines"


def test_what_is_past_its_deadline_has_timed_out_before_anybody_wrote_it(a_tree):
    sql.rows("UPDATE flows_promise SET deadline_at = now() - interval '1 s', kind = 'timer' WHERE id = 'p.1.0'")
    sql.rows("UPDATE flows_promise SET deadline_at = now() - interval '1 s' WHERE id = 'p.1'")
    _, _, late, timer, _ = read_tree("p").promises
    assert (late.state, late.phase, late.settled_at, late.is_awaited) == (
        State.TIMEDOUT,
        Phase.NONE,
        late.deadline_at,
        False,
    )
    assert timer.state is State.RESOLVED


def test_a_part_of_a_tree_can_be_asked_for(a_tree):
    assert [each.id for each in read_tree("p.1").promises] == ["p.1", "p.1.0"]


def test_a_limit_cuts_off_what_is_deepest_and_says_so(a_tree):
    tree = read_tree("p", limit=4)
    assert [each.id for each in tree.promises] == ["p", "p.0", "p.1", "p.2"]
    assert tree.is_cut
    assert not read_tree("p", limit=5).is_cut


@pytest.mark.parametrize("promise_id", ["nobody", "a\x00b", ""])
def test_a_promise_that_there_is_not(transactional_db, promise_id):
    with pytest.raises(PromiseNotFound):
        read_tree(promise_id)
