from datetime import UTC, datetime
from itertools import accumulate

import pytest

from flows.domain.promise import Kind, Phase, State
from flows.domain.tree import Branch, Siblings, TreePromise, fold, in_tree_order

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def promise(promise_id: str, function: str = "f", state: State = State.PENDING, kind: Kind = Kind.RPC) -> TreePromise:
    parent, _, position = promise_id.rpartition(".")
    return TreePromise(
        id=promise_id,
        parent_id=parent or None,
        root_id="p",
        depth=promise_id.count("."),
        position=int(position) if parent else 0,
        kind=kind,
        group="g",
        function=function,
        addressee="",
        state=state,
        phase=Phase.NONE,
        note="",
        error="",
        created_at=NOW,
        deadline_at=NOW,
        ready_at=None,
        settled_at=None,
        claimed_at=None,
        fence=0,
        failures=0,
        losses=0,
        node="",
        is_awaited=False,
        attempts=(),
    )


def ids(branch: Branch | Siblings) -> object:
    if isinstance(branch, Siblings):
        return [ids(each) for each in branch.branches]
    return (branch.promise.id, *(ids(each) for each in branch.below)) if branch.below else branch.promise.id


def test_tree_order_is_by_call_and_not_by_spelling():
    shuffled = ["p.10", "p.2.0", "p", "p.9", "p.2"]
    assert [each.id for each in in_tree_order(map(promise, shuffled))] == ["p", "p.2", "p.2.0", "p.9", "p.10"]


def test_branches_nest_as_calls_do():
    ordered = [promise(each) for each in ("p", "p.0", "p.0.0", "p.0.1", "p.1")]
    assert ids(fold(ordered)) == ("p", ("p.0", "p.0.0", "p.0.1"), "p.1")


def test_many_calls_of_one_function_are_one_line_where_the_first_of_them_stood():
    calls = [promise(f"p.{n}", "odd" if n == 1 else "rax") for n in range(4)]
    folded = fold([promise("p"), *calls], wide=3)
    assert ids(folded) == ("p", ["p.0", "p.2", "p.3"], "p.1")


def test_few_calls_and_calls_of_several_functions_are_lines_of_their_own():
    calls = [promise(f"p.{n}", f"f{n % 3}") for n in range(6)]
    assert all(isinstance(each, Branch) for each in fold([promise("p"), *calls], wide=3).below)


def test_siblings_count_their_states_in_one_order():
    states = [State.REJECTED, State.RESOLVED, State.RESOLVED]
    calls = [promise(f"p.{n}", state=state) for n, state in enumerate(states)]
    (siblings,) = fold([promise("p"), *calls], wide=3).below
    assert isinstance(siblings, Siblings)
    assert list(siblings.counts.items()) == [(State.RESOLVED, 2), (State.REJECTED, 1)]
    assert siblings.first.id == "p.0"


@pytest.mark.parametrize("depth", [1, 5_000])
def test_no_depth_is_too_deep(depth):
    ordered = [promise(each) for each in accumulate([".0"] * depth, initial="p")]
    branch = fold(in_tree_order(reversed(ordered)))
    for _ in range(depth):
        (below,) = branch.below
        assert isinstance(below, Branch)
        branch = below
    assert branch.promise.id == ordered[-1].id
