"""A call tree as it is read for people: promises in tree order, and wide siblings folded into one line."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from flows.domain.promise import AttemptOutcome, Kind, Phase, State

# So many calls of one function under one parent are shown as one line.
WIDE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeAttempt:
    """One ended attempt. ``error`` is one line, empty if it did not raise."""

    fence: int
    outcome: AttemptOutcome
    node: str
    started_at: datetime
    ended_at: datetime
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePromise:
    """One promise of a tree, with the state that it has now: past its deadline it has timed out, written or not.

    ``depth`` counts from 0 at the promise that was asked for. ``error`` is one line. ``node`` is the name of the node
    that holds it; ``claimed_at`` is when it was last claimed. ``is_awaited``: its parent waits for it. ``attempts`` are
    the last ones that have ended, oldest first.
    """

    id: str
    parent_id: str | None
    root_id: str
    depth: int
    position: int
    kind: Kind
    group: str
    function: str
    addressee: str
    state: State
    phase: Phase
    note: str
    error: str
    created_at: datetime
    deadline_at: datetime
    ready_at: datetime | None
    settled_at: datetime | None
    claimed_at: datetime | None
    fence: int
    failures: int
    losses: int
    node: str
    is_awaited: bool
    attempts: tuple[TreeAttempt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A promise and the calls below it, detached ones included, each right after its parent, siblings by position.

    ``now`` is the database's time of reading. ``is_cut``: there are more, deeper down or further on.
    """

    promises: tuple[TreePromise, ...]
    now: datetime
    is_cut: bool

    @property
    def is_live(self) -> bool:
        """True while anything in it is pending."""
        return any(promise.state is State.PENDING for promise in self.promises)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One promise and what it called."""

    promise: TreePromise
    below: tuple["Branch | Siblings", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Siblings:
    """Many calls of one function by one parent, in call order, at least ``WIDE``."""

    branches: tuple[Branch, ...]

    @property
    def first(self) -> TreePromise:
        """The first of them, which stands for kind, group and function of all."""
        return self.branches[0].promise

    @property
    def counts(self) -> dict[State, int]:
        """How many are in each state that occurs, in the order of the states."""
        found = Counter(branch.promise.state for branch in self.branches)
        return {state: found[state] for state in State if found[state]}


def in_tree_order(promises: Iterable[TreePromise]) -> list[TreePromise]:
    """Return promises, of which one is everybody's ancestor, each right after its parent, siblings by position."""
    below: defaultdict[str, list[TreePromise]] = defaultdict(list)
    top: TreePromise | None = None
    for promise in sorted(promises, key=lambda promise: promise.position, reverse=True):
        if promise.depth == 0:
            top = promise
        elif promise.parent_id is not None:
            below[promise.parent_id].append(promise)
    ordered: list[TreePromise] = []
    ahead = [top] if top else []
    while ahead:
        ordered.append(ahead.pop())
        ahead += below[ordered[-1].id]
    return ordered


def fold(promises: Sequence[TreePromise], wide: int = WIDE) -> Branch:
    """Return promises in tree order as nested branches, with ``wide`` or more calls of one function folded into one."""
    below: defaultdict[str | None, list[Branch]] = defaultdict(list)
    # From the end: what a promise called stands behind it, and is complete when its own turn comes.
    for promise in reversed(promises[1:]):
        branch = Branch(promise=promise, below=_folded(below.pop(promise.id, [])[::-1], wide))
        below[promise.parent_id].append(branch)
    top = promises[0]
    return Branch(promise=top, below=_folded(below.pop(top.id, [])[::-1], wide))


def _folded(branches: Sequence[Branch], wide: int) -> tuple[Branch | Siblings, ...]:
    alike: dict[tuple[Kind, str, str], list[Branch]] = {}
    for branch in branches:
        alike.setdefault((branch.promise.kind, branch.promise.group, branch.promise.function), []).append(branch)
    folded: list[Branch | Siblings] = []
    for found in alike.values():
        folded += [Siblings(branches=tuple(found))] if len(found) >= wide else found
    return tuple(sorted(folded, key=lambda each: _first(each).position))


def _first(each: Branch | Siblings) -> TreePromise:
    return each.promise if isinstance(each, Branch) else each.first
