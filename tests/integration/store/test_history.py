"""Many clients at once, and what they were told: of each promise, the history of a register that is written once."""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import OperationalError, connection

from flows.domain import values
from flows.domain.errors import PromiseNotFound
from flows.domain.promise import Kind, Phase, State
from flows.engine.decision import Decision, Failed, Rejected, Resolved, Suspended
from flows.store import claims, joins, nodes, outcomes, promises, sql, sweeps
from flows.store.cancel import cancel_tree
from flows.store.claims import Claim, Holder, ReadyRef
from flows.store.nodes import NodeInfo
from flows.store.outcomes import Outcome
from flows.store.promises import Start
from tests.integration.conftest import call, resolve, suspend

CLIENTS = 8
ROOTS = 60
OPERATIONS = 1800
ROUNDS = 15

Settled = tuple[str, Any]


# --- the history of one promise, and what is wrong with it ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One operation as its client saw it: ``begin`` and ``end`` on one clock for all.

    ``settled`` is the outcome that it has seen, or written if it ``is_first``; ``fence`` that of the claim.
    """

    what: str
    begin: float
    end: float
    settled: Settled | None = None
    is_first: bool = False
    fence: int = 0


def faults(events: Sequence[Event]) -> Iterator[str]:
    """Find what no write-once register with a fence would have told its clients."""
    seen = [event for event in events if event.settled is not None]
    if len({event.settled for event in seen}) > 1:
        yield f"more than one outcome: {seen}"
    if len(firsts := [event for event in events if event.is_first]) > 1:
        yield f"settled more than once: {firsts}"
    known_from = min((event.end for event in seen), default=float("inf"))
    for event in events:
        if event.what == "read" and event.settled is None and event.begin > known_from:
            yield f"pending, after an outcome was seen: {event}"
        newer = [each for each in events if each.what == "claim" and each.fence > event.fence]
        if event.what == "commit" and any(claim.end < event.begin for claim in newer):
            yield f"written by one who was overtaken: {event}"
    fences = Counter(event.fence for event in events if event.what == "claim")
    if any(count > 1 for count in fences.values()):
        yield f"claimed twice: {fences}"
    if _count(events, "wake") > _count(events, "suspend"):
        yield f"woken more often than suspended: {events}"


def _count(events: Sequence[Event], what: str) -> int:
    return len([event for event in events if event.what == what])


def _event(what: str, at: int, **fields: Any) -> Event:
    return Event(what=what, begin=at, end=at + 1, **fields)


ONE, TWO = (State.RESOLVED, 1), (State.RESOLVED, 2)


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ([_event("read", 1, settled=ONE), _event("read", 3, settled=TWO)], "more than one outcome"),
        ([_event("settle", 1, settled=ONE, is_first=True), _event("read", 3)], "pending, after"),
        ([_event("settle", at, settled=ONE, is_first=True) for at in (1, 3)], "settled more than once"),
        ([_event("claim", 1, fence=1), _event("claim", 3, fence=2), _event("commit", 5, fence=1)], "overtaken"),
        ([_event("claim", at, fence=1) for at in (1, 3)], "claimed twice"),
        ([_event("suspend", 1), _event("wake", 3), _event("wake", 5)], "woken more often"),
        ([_event("settle", 1, settled=ONE, is_first=True), _event("read", 1)], ""),
        ([_event("claim", 1, fence=1), _event("commit", 2, fence=1), _event("claim", 3, fence=2)], ""),
    ],
)
def test_a_wrong_history_is_found_and_a_right_one_is_not(events, fault):
    found = list(faults(events))
    assert len(found) == bool(fault)
    assert not fault or fault in found[0]


# --- the clients ---


class Client:
    """One node with one session, which does whatever its random picks, and writes down what it was told."""

    def __init__(self, number: int, seed: int, node_ids: list[int]) -> None:
        self.history: list[tuple[str, Event]] = []
        self._random = random.Random(f"{seed} {number}")
        self._number = number
        self._node_ids = node_ids
        self._holder = Holder(node_id=node_ids[number], session=1)
        self._claims: list[Claim] = []
        self._tokens = 0

    def run(self, began: Barrier) -> None:
        try:
            assert nodes.hold_session_lock(self._holder.node_id, self._holder.session)
            began.wait()
            for index in range(OPERATIONS):
                # Few promises at a time, the same for all clients; now and then one of those that are long settled.
                newest = index * ROOTS // OPERATIONS
                root = f"r{self._random.randint(0, newest) if self._random.random() < 0.2 else newest}"
                self._act(root)
        finally:
            connection.close()

    def _act(self, root: str) -> None:
        actions = [self._start] + [self._read] * 6 + [self._claim] * 6 + [self._finish] * 4 + [self._settle] * 3
        actions += [self._join, self._steal] * 2 + [self._cancel, self._expire]
        try:
            self._random.choice(actions)(root)
        except OperationalError as error:
            # Two lock the same rows in another order: one of them is refused, and writes nothing.
            if "deadlock detected" not in str(error):
                raise

    def _log(self, what: str, promise_id: str, begin: float, **fields: Any) -> None:
        self.history.append((promise_id, Event(what=what, begin=begin, end=time.monotonic(), **fields)))

    def _any_of(self, root: str) -> str:
        return self._random.choice([root, *(f"{root}.{position}" for position in range(4))])

    def _start(self, root: str) -> None:
        begin = time.monotonic()
        timeout = timedelta(seconds=0.5 if root.endswith("3") else 60)
        call = Start(id=root, group="g", function="f", args="[]", digest=values.digest([]), timeout=timeout)
        self._log("born" if promises.start(call) else "start", root, begin)

    def _read(self, root: str) -> None:
        promise_id, begin = self._any_of(root), time.monotonic()
        try:
            promise = promises.get(promise_id)
        except PromiseNotFound:
            return
        token = promise.error["message"] if promise.state is State.REJECTED and promise.error else promise.value
        settled = (promise.state, token) if promise.is_settled else None
        self._log("read", promise_id, begin, settled=settled)

    def _claim(self, root: str) -> None:
        begin = time.monotonic()
        if self._random.random() < 0.5:
            taken, _ = claims.claim_ready("g", ["f"], 2, self._holder)
        else:
            named, _ = claims.claim_named(ReadyRef(id=self._any_of(root), group="g", function="f"), self._holder)
            taken = [named] if named else []
        for claim in taken:
            self._log("claim", claim.invocation.id, begin, fence=claim.fence)
        self._claims += taken

    def _finish(self, root: str) -> None:
        if not self._claims:
            return
        claim = self._claims.pop(self._random.randrange(len(self._claims)))
        outcome = self._outcome(claim)
        promise_id, begin = claim.invocation.id, time.monotonic()
        if promise_id not in outcomes.commit([outcome]):
            return
        self._log("commit", promise_id, begin, fence=claim.fence)
        match outcome.decision:
            case Resolved(value=value):
                self._log("settle", promise_id, begin, settled=(State.RESOLVED, int(value)), is_first=True)
            case Rejected(error=error):
                self._log("settle", promise_id, begin, settled=(State.REJECTED, error["message"]), is_first=True)
            case Suspended():
                self._log("suspend", promise_id, begin)

    def _outcome(self, claim: Claim) -> Outcome:
        known = claim.invocation.checkpoints
        pending = tuple(each.id for each in known if each.state is State.PENDING)
        decision: Decision | None
        match self._random.choice(["call"] * 4 + ["suspend", "resolve", "reject", "fail", "release"]):
            case "call" if len(known) < 4 and "." not in claim.invocation.id:
                kinds = [Kind.EXTERNAL, self._random.choice([Kind.RPC, Kind.EXTERNAL])]
                calls = tuple(call(claim, len(known) + n, kind, function="f") for n, kind in enumerate(kinds))
                awaits = tuple(each.id for each in calls)
                decision = Suspended(awaits=awaits, first=self._random.random() < 0.3)
                return Outcome(claim=claim, calls=calls, decision=decision)
            case "suspend" if pending:
                return Outcome(claim=claim, decision=Suspended(awaits=pending))
            case "resolve":
                decision = Resolved(value=str(self._token()))
            case "reject":
                decision = Rejected(error=self._error(), exception=ValueError())
            case "fail":
                decision = Failed(error=self._error(), exception=ValueError(), delay=timedelta(0), failures=1)
            case _:
                return Outcome(claim=claim, released=True)
        return Outcome(claim=claim, decision=decision)

    def _settle(self, root: str) -> None:
        promise_id, begin = self._any_of(root), time.monotonic()
        if self._random.random() < 0.5:
            token: Any = self._token()
            settled = (State.RESOLVED, token)
            parent_id = promises.settle(promise_id, State.RESOLVED, value=str(token))
        else:
            error = self._error()
            settled = (State.REJECTED, error["message"])
            parent_id = promises.settle(promise_id, State.REJECTED, error=error)
        if parent_id is not None:
            self._log("settle", promise_id, begin, settled=settled, is_first=True)
            self._join(parent_id)

    def _cancel(self, root: str) -> None:
        promise_id, begin = f"{root}.{self._random.randrange(4)}", time.monotonic()
        count, parent_id = cancel_tree(promise_id)
        if parent_id is not None:
            assert count
            self._log("settle", promise_id, begin, settled=(State.CANCELED, None), is_first=True)

    def _join(self, root: str) -> None:
        begin = time.monotonic()
        for woken in joins.join([root]) if self._random.random() < 0.7 else joins.join_missed():
            self._log("wake", woken.id, begin)

    def _steal(self, root: str) -> None:
        """End a node's lease, as if it were frozen, sweep, and let it come back."""
        node_id, begin = self._random.choice(self._node_ids), time.monotonic()
        nodes.stop(node_id)
        for promise_id in sweeps.recover().rejected_ids:
            lost = "3 attempts in a row ended without an outcome"
            self._log("settle", promise_id, begin, settled=(State.REJECTED, lost), is_first=True)
        lend(node_id)

    def _expire(self, root: str) -> None:
        joins.join(sweeps.expire_due())

    def _token(self) -> int:
        self._tokens += 1
        return self._number * 1_000_000 + self._tokens

    def _error(self) -> dict[str, Any]:
        return {"type": "E", "message": str(self._token()), "traceback": "", "cause": None}


def lend(node_id: int) -> None:
    """Give the node a lease for longer than the test takes: LEASE itself is short, so that claims can be stolen."""
    sql.rows("UPDATE flows_node SET lease_until = now() + interval '1 hour' WHERE id = %(id)s", id=node_id)


@pytest.mark.parametrize("seed", range(3))
def test_each_promise_has_the_history_of_a_register_that_is_written_once(transactional_db, settings, seed):
    settings.FLOWS = settings.FLOWS | {"LEASE": timedelta(milliseconds=1), "MAX_LOSSES": 3}
    infos = [NodeInfo(name=f"node@{n}", groups=("g",), hostname="test", pid=n) for n in range(CLIENTS)]
    node_ids = [nodes.register(info) for info in infos]
    for node_id in node_ids:
        lend(node_id)
    clients = [Client(number, seed, node_ids) for number in range(CLIENTS)]
    began = Barrier(CLIENTS)
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(client.run, began) for client in clients]:
            done.result()

    histories: dict[str, list[Event]] = defaultdict(list)
    for promise_id, event in (told for client in clients for told in client.history):
        histories[promise_id].append(event)
    assert {id: found for id, events in histories.items() if (found := list(faults(events)))} == {}
    # It was no idle run: all of it happened, and those who were overtaken tried to write.
    happened = Counter(event.what for events in histories.values() for event in events)
    assert happened.keys() >= {"born", "start", "read", "claim", "commit", "suspend", "settle", "wake"}
    assert sql.rows("SELECT count(*) > 0 AS is_so FROM flows_attempt WHERE outcome = 'fenced'")[0]["is_so"]


# --- all at the same moment ---


@pytest.fixture
def at_once(transactional_db: None) -> Iterator[Callable[[Callable[[int], Any]], list[Any]]]:
    """Have all clients do something at the same moment; return what each was told."""
    together = Barrier(CLIENTS)

    def begin(action: Callable[[int], Any], number: int) -> Any:
        together.wait()
        return action(number)

    with ThreadPoolExecutor(CLIENTS) as pool:

        def at_once(action: Callable[[int], Any]) -> list[Any]:
            return [done.result() for done in [pool.submit(begin, action, number) for number in range(CLIENTS)]]

        yield at_once
        at_once(lambda _: connection.close())


def test_of_concurrent_starts_one_is_the_first(start, at_once):
    call = Start(id="p", group="g", function="f", args="[]", digest=values.digest([]))
    for round_ in range(ROUNDS):
        named = replace(call, id=f"p{round_}")
        assert sum(at_once(lambda _, named=named: promises.start(named))) == 1


@pytest.mark.parametrize("by_name", [True, False])
def test_of_concurrent_claims_one_wins(start, holder, at_once, by_name):
    def take(number: int) -> list[int]:
        mine = Holder(node_id=holder.node_id, session=number)
        if by_name:
            claim, _ = claims.claim_named(ReadyRef(id="p", group="g", function="f"), mine)
            return [claim.fence] if claim else []
        return [claim.fence for claim in claims.claim_ready("g", ["f"], 5, mine)[0]]

    start()
    for fence in range(1, ROUNDS):
        assert [taken for each in at_once(take) for taken in each] == [fence]
        sql.rows("UPDATE flows_promise SET phase = 'ready', ready_at = now(), node_id = NULL, session = NULL")


def test_of_concurrent_settlements_one_is_the_first_and_stays(start, claim, at_once):
    start()
    parent = claim()
    outcomes.commit([Outcome(claim=parent, calls=tuple(call(parent, n, Kind.EXTERNAL) for n in range(ROUNDS)))])

    def settle(number: int) -> Any:
        if number == 0:
            return ("canceled", None) if cancel_tree(promise_id)[0] else None
        if number % 2:
            is_first = promises.settle(promise_id, State.RESOLVED, value=str(number))
            return ("resolved", number) if is_first else None
        error = {"type": "E", "message": str(number)}
        return ("rejected", error) if promises.settle(promise_id, State.REJECTED, error=error) else None

    for round_ in range(ROUNDS):
        promise_id = f"p.{round_}"
        (first,) = filter(None, at_once(settle))
        promise = promises.get(promise_id)
        assert (promise.state, promise.value if promise.error is None else promise.error) == first


def test_of_concurrent_commits_of_one_claim_one_is_written(start, claim, at_once):
    for round_ in range(ROUNDS):
        taken = claim(start(f"p{round_}"))
        written = at_once(lambda number, taken=taken: number if resolve(taken, str(number)) else None)
        assert [number for number in written if number is not None] == [promises.get(f"p{round_}").value]


def test_of_concurrent_joins_one_wakes_the_parent(start, claim, at_once):
    for round_ in range(ROUNDS):
        parent = claim(start(f"p{round_}"))
        suspend(parent, call(parent, 0), call(parent, 1))
        for position in range(2):
            resolve(claim(f"p{round_}.{position}", "child"))
        named = parent.invocation.id
        woken = at_once(lambda number, named=named: joins.join([named]) if number % 2 else joins.join_missed())
        assert [ref.id for refs in woken for ref in refs] == [named]
        assert promises.get(named).phase is Phase.READY
