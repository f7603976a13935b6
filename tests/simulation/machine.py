"""Any operation of the store, in any order, with any arguments that a worker, a caller or a sweep could have.

Every operation takes a tick, and all durations are whole hours, more than all ticks together: no moment is ever so near
that a second store, on a clock of its own, could see it otherwise.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

from django.db import IntegrityError
from hypothesis import HealthCheck, note, settings
from hypothesis import Phase as HypothesisPhase
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from flows.conf import Settings
from flows.domain import values
from flows.domain.errors import PromiseConflict, PromiseNotFound
from flows.domain.promise import LOCAL_KINDS, Kind, Phase, State
from flows.engine.decision import Call, Checkpoint, Decision, Failed, Rejected, Resolved, SetAside, Suspended
from flows.store.claims import Claim, Holder, ReadyRef
from flows.store.outcomes import Outcome
from flows.store.promises import Start
from tests.simulation.invariants import Moment, check, copied
from tests.simulation.store import Store
from tests.simulation.table import Record

TICK = timedelta(seconds=20)
HOUR = timedelta(hours=1)
SETTINGS = Settings(SWEEP_EVERY=HOUR, MAX_LOSSES=2, LEASE=timedelta(days=10_000))
GROUPS = ("g", "h")
FUNCTIONS = ("e", "f")
# Two sessions of one node and one of another; calls may be for either node, or for one that is gone.
HOLDERS = (
    Holder(node_id=1, session=1, addresses=("11", "g@1")),
    Holder(node_id=1, session=2, addresses=("11", "g@1")),
    Holder(node_id=2, session=1, addresses=("22",)),
)
ADDRESSEES = ("", "", "", "11", "22", "33")
_AWAITABLE = (Kind.RPC, Kind.RFI, Kind.TIMER, Kind.EXTERNAL)

NewStore = Callable[[Callable[[], datetime], Settings], Store]

# What must have happened at least once in a run, so that its rules were not idle.
EFFECTS = {
    *("start", "start again", "start of another call", "get", "get overdue", "get nobody"),
    *("claim_named ready", "claim_named suspended", "claim_named refused", "claim_ready", "claim_ready and more"),
    *("commit resolved", "commit rejected", "commit failed", "commit suspended", "commit race", "commit aside"),
    *("commit part", "commit released", "commit many", "commit marks", "commit cancels", "commit fenced"),
    *("commit again", "commit overtaken", "commit taken id", "commit_calls", "commit_calls fenced", "commit step"),
    *(f"commit {kind} call" for kind in Kind if kind is not Kind.ROOT),
    *("join", "join_missed", "recover", "recover rejected", "expire_due", "expire_due timer"),
    *("cancel_tree", "cancel_tree of a call"),
    *("settle resolved", "settle rejected", "settle refused", "retry aside", "retry waiting"),
    *("reopen", "reopen tree", "take_unsent", "not_sent"),
}


def run(new_store: NewStore, *, examples: int, twin: NewStore = Store) -> set[str]:
    """Run so many examples of 80 operations, the same every time; return which effects there were."""
    effects: Counter[str] = Counter()
    bounds = settings(
        max_examples=examples,
        stateful_step_count=80,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[HypothesisPhase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(partial(Machine, new_store, effects, twin), settings=bounds)  # type: ignore[arg-type]  # what makes one will do
    return {effect for effect, count in effects.items() if count}


def _pick(rng: Random, options: Sequence[Any]) -> Any:
    return rng.choice(options)


def _some(rng: Random, options: Sequence[Any], least: int = 0) -> list[Any]:
    most = min(3, len(options))
    return rng.sample(options, rng.randint(min(least, most), most))


_OPERATIONS: list[tuple[int, Callable[[Any], Any], Callable[[Any, Random], None]]] = []


def _operation(weight: int, can_be: Callable[[Any], Any] = lambda _: True) -> Callable[..., Any]:
    """Make a method something that may happen: so often, while ``can_be`` holds."""

    def register(method: Any) -> Any:
        _OPERATIONS.append((weight, can_be, method))
        return method

    return register


class Machine(RuleBasedStateMachine):
    """Drives a store.

    ``effects`` counts what each operation has brought about; in a ``twin`` is tried what could be done next.
    """

    def __init__(self, new_store: NewStore, effects: Counter[str], twin: NewStore = Store) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.store = new_store(lambda: self.now, SETTINGS)
        self.effects = effects
        self._twin = twin
        self._claims: list[Claim] = []
        # What each promise was suspended on last, what each claim has called, and what attempts that went on wrote.
        self._awaits: dict[str, Suspended] = {}
        self._made: dict[tuple[str, int], list[Call]] = {}
        self._parts: list[Outcome] = []
        self._before: dict[str, Record] = {}
        self._reopens = False
        self._numbers = 0

    @property
    def _rows(self) -> dict[str, Record]:
        return self.store.table.rows

    @invariant()
    def nothing_is_broken(self) -> None:
        check(
            Moment(
                twin=self._twin(lambda: self.now, SETTINGS),
                now=self.now,
                before=self._before,
                rows=self._rows,
                reopens=self._reopens,
                claims=self._claims,
                awaits=self._awaits,
            )
        )
        self._before, self._reopens = copied(self._rows), False
        self.now += TICK

    @rule(rng=st.randoms(use_true_random=True))
    def operate(self, rng: Random) -> None:
        """One rule, drawn by one seed: hypothesis would leave half of many out of an example, and all that follows."""
        possible = sorted((each for each in _OPERATIONS if each[1](self)), key=lambda each: -each[0])
        methods = [method for weight, _, method in possible for _ in range(weight)]
        method = _pick(rng, methods)
        note(method.__name__)
        method(self, rng)

    # --- callers ---

    @initialize()
    def first(self) -> None:
        self._start("p0", "g", "f", [0], None)

    @_operation(2)
    def start(self, rng: Random) -> None:
        id, arg = _pick(rng, ["p0", "p1", "p2", *self._rows]), _pick(rng, [0, 0, 0, 1])
        self._start(id, _pick(rng, GROUPS), _pick(rng, FUNCTIONS), [arg], self._draw_timeout(rng))

    @_operation(2)
    def get(self, rng: Random) -> None:
        id = _pick(rng, [*self._rows, "nobody"])
        try:
            promise = self.store.get(id)
        except PromiseNotFound:
            self._note("get nobody")
            return
        assert promise.is_settled or promise.deadline_at > self.now
        self._note("get")
        if self._before[id].state is State.PENDING and promise.is_settled:
            self._note("get overdue")

    @_operation(3, lambda self: self._of_kind(Kind.EXTERNAL))
    def settle(self, rng: Random) -> None:
        state = _pick(rng, [State.RESOLVED, State.REJECTED])
        id = _pick(rng, _pick(rng, [self._of_kind(Kind.EXTERNAL)] * 3 + [[*self._rows, "nobody"]]))
        outcome: dict[str, Any] = {"error": self._draw_error(rng, ())}
        if state is State.RESOLVED:
            outcome = {"value": self._value()}
        parent_id = self.store.settle(id, state, **outcome)
        assert (parent_id is not None) == (self._changed(id) and self._rows[id].state is state)
        self._note(f"settle {state}" if parent_id else "settle refused")

    @_operation(1)
    def cancel_tree(self, rng: Random) -> None:
        id = _pick(rng, [*self._rows, "nobody"])
        count, parent_id = self.store.cancel_tree(id)
        assert count == len([id for id in self._rows if self._changed(id)])
        self._note("cancel_tree", when=count > 1)
        self._note("cancel_tree of a call", when=bool(parent_id))

    @_operation(2, lambda self: self._in_phase(Phase.ASIDE, Phase.READY))
    def retry(self, rng: Random) -> None:
        later = [row.id for row in self.store.pending() if row.ready_at and row.ready_at > self.now]
        id = _pick(rng, [*self._in_phase(Phase.ASIDE), *later] or self._in_phase(Phase.READY))
        if self.store.retry(id):
            self._note("retry aside" if self._before[id].phase is Phase.ASIDE else "retry waiting")

    @_operation(2, lambda self: len(self.store.pending()) < len(self._rows))
    def reopen(self, rng: Random) -> None:
        settled = [row for row in self._rows.values() if row.state is not State.PENDING]
        rejected = [row for row in settled if row.state is State.REJECTED and row.kind in (Kind.ROOT, Kind.DETACHED)]
        self._reopens = True
        with_calls = [row for row in rejected if "promises" in (row.error or {})]
        self.store.reopen(_pick(rng, with_calls or rejected or settled).id)
        count = len([id for id in self._rows if self._changed(id)])
        self._note("reopen", when=count > 0)
        self._note("reopen tree", when=count > 1)

    # --- workers ---

    @_operation(7, lambda self: self._in_phase(Phase.READY, Phase.SUSPENDED))
    def claim_named(self, rng: Random) -> None:
        holder = _pick(rng, HOLDERS)
        ready, suspended = self._in_phase(Phase.READY), self._in_phase(Phase.SUSPENDED)
        row = self._rows[_pick(rng, _pick(rng, [each for each in (ready, ready, suspended) if each]))]
        phase = row.phase
        claim, _ = self.store.claim_named(ReadyRef(id=row.id, group=row.group, function=row.function), holder)
        self._claims += [claim] if claim else []
        self._note(f"claim_named {phase if claim else 'refused'}")

    @_operation(6, lambda self: self._in_phase(Phase.READY))
    def claim_ready(self, rng: Random) -> None:
        holder = _pick(rng, HOLDERS)
        group = _pick(rng, GROUPS)
        functions = _pick(rng, [FUNCTIONS, FUNCTIONS, FUNCTIONS[:1]])
        claims, following = self.store.claim_ready(group, functions, _pick(rng, [1, 2, 5]), holder)
        self._claims += claims
        self._note("claim_ready", when=bool(claims))
        self._note("claim_ready and more", when=following is not None)

    @_operation(12, lambda self: self._held())
    def commit_suspensions(self, rng: Random) -> None:
        self._commit_some(rng, ["suspended"])

    @_operation(6, lambda self: self._held())
    def commit_ends(self, rng: Random) -> None:
        self._commit_some(rng, ["resolved", "rejected", "rejected"])

    @_operation(5, lambda self: self._held())
    def commit_what_goes_on(self, rng: Random) -> None:
        self._commit_some(rng, ["failed", "aside", "part", "part", "released"])

    @_operation(4, lambda self: self._held())
    def commit_anything(self, rng: Random) -> None:
        self._commit_some(rng, ["suspended", "resolved", "rejected", "part", "released", "failed"])

    @_operation(1, lambda self: self._lost())
    def commit_late(self, rng: Random) -> None:
        """By a worker whose claim was taken from it, or past the deadline."""
        self._commit_some(rng, ["suspended", "resolved", "part"], self._lost())

    @_operation(15, lambda self: self._overtaken())
    def commit_overtaken(self, rng: Random) -> None:
        """By a worker whose promise another one runs now."""
        self._commit_some(rng, ["suspended", "resolved", "part"], self._overtaken())
        self._note("commit overtaken")

    @_operation(6, lambda self: self._parts_in_hand())
    def commit_again(self, rng: Random) -> None:
        """The answer was lost, and the same is written again."""
        self._commit([_pick(rng, self._parts_in_hand())], again=True)
        self._note("commit again")

    @_operation(2, lambda self: self._held())
    def commit_what_cannot_be(self, rng: Random) -> None:
        """The id of a call is taken, by another call."""
        again = _pick(rng, [True, False])
        claim = _pick(rng, self._held())
        taken = [*claim.invocation.checkpoints, *self._made_by(claim)]
        if not taken:
            return
        call = self._new_call(rng, claim, 0, Kind.RPC, id=_pick(rng, taken).id, digest="another")
        try:
            self.store.commit([Outcome(claim=claim, calls=(call,), decision=Resolved(value="1"))], again=again)
        except IntegrityError:
            self._note("commit taken id")
        else:
            raise AssertionError(f"two calls are {call.id}")

    @_operation(1, lambda self: self._claims)
    def commit_calls(self, rng: Random) -> None:
        claim = _pick(rng, _pick(rng, [self._held()] * 3 + [self._claims]) or self._claims)
        step = self._new_call(rng, claim, 0, Kind.RUN)
        is_held = self._holds(claim)
        assert self.store.commit_calls(claim, [step]) == is_held
        self._note("commit_calls" if is_held else "commit_calls fenced")
        self._made.setdefault((claim.invocation.id, claim.fence), []).append(step)

    # --- sweeps ---

    @_operation(3, lambda self: self._in_phase(Phase.SUSPENDED))
    def join(self, rng: Random) -> None:
        ids = _some(rng, [*self._in_phase(Phase.SUSPENDED), "p0", "nobody"], 1)
        self._note("join", when=bool(self.store.join(ids)))

    @_operation(8, lambda self: self._missed())
    def join_missed(self, rng: Random) -> None:
        limit = _pick(rng, [1, 1000])
        self._note("join_missed", when=bool(self.store.join_missed(limit)))

    @_operation(3, lambda self: self._in_phase(Phase.CLAIMED))
    def recover(self, rng: Random) -> None:
        """Some sessions are dead; one that comes back later was only frozen."""
        limit = _pick(rng, [1, 1000])
        claimed = [self._rows[id] for id in self._in_phase(Phase.CLAIMED)]
        dead = {(row.node_id, row.session) for row in _some(rng, claimed, 1)}
        recovered = self.store.recover(dead, limit)
        self._note("recover", when=bool(recovered.ready))
        self._note("recover rejected", when=bool(recovered.rejected_ids))

    @_operation(2)
    def expire_due(self, rng: Random) -> None:
        parents = self.store.expire_due()
        self._note("expire_due", when=bool(parents))
        timers = (row for row in self._rows.values() if row.kind is Kind.TIMER and self._changed(row.id))
        self._note("expire_due timer", when=any(timers))

    @_operation(1)
    def send_again(self, rng: Random) -> None:
        found = self.store.take_unsent(_some(rng, GROUPS, 1), _pick(rng, HOLDERS).addresses)
        self._note("take_unsent", when=bool(found))

    @_operation(1)
    def not_sent(self, rng: Random) -> None:
        ids = _some(rng, list(self._rows))
        self.store.not_sent(ids)
        self._note("not_sent", when=any(self._changed(id) for id in ids))

    @_operation(2)
    def wait(self, rng: Random) -> None:
        hours = _pick(rng, [1, 1, 2, 5])
        self.now += hours * HOUR

    # --- what they draw, and do in common ---

    def _start(self, id: str, group: str, function: str, args: list[Any], timeout: Any) -> None:
        call = Start(
            id=id,
            group=group,
            function=function,
            args=values.encode(args, "args"),
            digest=values.digest(args),
            timeout=timeout,
            tags={"n": id},
        )
        is_known = id in self._rows
        try:
            is_new = self.store.start(call)
        except PromiseConflict:
            self._note("start of another call")
            return
        assert is_new != is_known
        self._note("start" if is_new else "start again")

    def _commit_some(self, rng: Random, names: list[str], late: Sequence[Claim] = ()) -> None:
        claims = {claim.invocation.id: claim for claim in [*_some(rng, self._held()), *_some(rng, late, 1)]}
        batch = [self._draw_outcome(rng, claim, _pick(rng, names)) for claim in claims.values()]
        self._parts += [outcome for outcome in batch if outcome.calls and outcome.decision is None]
        self._commit(batch)

    def _commit(self, batch: list[Outcome], *, again: bool = False) -> int:
        held = {outcome.claim.invocation.id for outcome in batch if self._holds(outcome.claim)}
        written = self.store.commit(batch, again=again)
        assert written.keys() == held
        for outcome in batch:
            if outcome.claim.invocation.id in held:
                self._remember(outcome)
                self._note_outcome(outcome)
        self._note("commit fenced", when=len(held) < len(batch))
        self._note("commit many", when=len(held) > 1)
        return len(held)

    def _remember(self, outcome: Outcome) -> None:
        id = outcome.claim.invocation.id
        made = self._made.setdefault((id, outcome.claim.fence), [])
        made += [call for call in outcome.calls if not call.is_known and call.id not in {each.id for each in made}]
        if isinstance(outcome.decision, Suspended):
            self._awaits[id] = outcome.decision

    def _note_outcome(self, outcome: Outcome) -> None:
        match outcome.decision:
            case None:
                self._note("commit released" if outcome.released else "commit part")
            case Suspended(first=True):
                self._note("commit race")
            case SetAside():
                self._note("commit aside")
            case decision:
                self._note(f"commit {type(decision).__name__.lower()}")
        self._note("commit marks", when=bool(outcome.marks))
        self._note("commit cancels", when=any(self._changed(id) for id in outcome.cancels))
        for call in outcome.calls:
            self._note("commit step" if call.is_known else f"commit {call.kind} call")

    def _holds(self, claim: Claim) -> bool:
        """The fence, as told in the design."""
        row, holder = self._rows[claim.invocation.id], claim.holder
        is_held = row.phase is Phase.CLAIMED and row.fence == claim.fence and row.deadline_at > self.now
        return is_held and (row.node_id, row.session) == (holder.node_id, holder.session)

    def _missed(self) -> list[str]:
        """Those that await nothing pending any more; a race may be missed sooner."""
        pending = {row.parent_id for row in self._rows.values() if row.state is State.PENDING and row.continuation}
        return [id for id in self._in_phase(Phase.SUSPENDED) if id not in pending]

    def _held(self) -> list[Claim]:
        return [claim for claim in self._claims if self._holds(claim)]

    def _overtaken(self) -> list[Claim]:
        held = {claim.invocation.id for claim in self._held()}
        return [claim for claim in self._lost() if claim.invocation.id in held]

    def _parts_in_hand(self) -> list[Outcome]:
        return [outcome for outcome in self._parts if self._holds(outcome.claim)]

    def _lost(self) -> list[Claim]:
        return [claim for claim in self._claims if not self._holds(claim)]

    def _draw_outcome(self, rng: Random, claim: Claim, name: str) -> Outcome:
        if name == "released":
            return Outcome(claim=claim, released=True)
        kinds = [_pick(rng, _AWAITABLE)] if name == "suspended" and _pick(rng, [True, True, False]) else []
        kinds += _some(rng, [kind for kind in Kind if kind is not Kind.ROOT])
        calls = [self._new_call(rng, claim, index, kind) for index, kind in enumerate(kinds)]
        known: list[Checkpoint | Call] = [*claim.invocation.checkpoints, *self._made_by(claim)]
        steps = [each for each in known if each.kind is Kind.RUN and each.state is State.PENDING]
        if steps and _pick(rng, [True, False]):
            step = _pick(rng, steps)
            again = self._new_call(rng, claim, 0, Kind.RUN, id=step.id, is_known=True)
            calls.append(again)
        pending = [each.id for each in [*known, *calls] if each.kind in _AWAITABLE and each.state is State.PENDING]
        failed = [row.id for row in self._rows.values() if row.parent_id == claim.invocation.id and row.error]
        cancels = tuple(_some(rng, [each.id for each in known])) if _pick(rng, [True, False, False]) else ()
        decision = self._draw_decision(rng, name, _some(rng, pending, 1), failed)
        before = frozenset(each.id for each in self._made_by(claim) if each.kind is Kind.RPC)
        return Outcome(claim=claim, calls=tuple(calls), cancels=cancels, decision=decision, awaited_before=before)

    def _draw_decision(self, rng: Random, name: str, awaits: list[str], failed: list[str]) -> Decision | None:
        match name:
            case "resolved":
                return Resolved(value=self._value())
            case "rejected":
                return Rejected(error=self._draw_error(rng, failed), exception=ValueError())
            case "failed":
                delay = _pick(rng, [5, 1, 0]) * HOUR
                return Failed(error=self._draw_error(rng, failed), exception=ValueError(), delay=delay, failures=1)
            case "aside":
                return SetAside(note="another call")
            case "suspended" if awaits:
                return Suspended(awaits=tuple(awaits), first=_pick(rng, [True, False]))
        return None

    def _new_call(self, rng: Random, claim: Claim, index: int, kind: Kind, **fields: Any) -> Call:
        position = len(claim.invocation.checkpoints) + len(self._made_by(claim)) + index
        args = [self._next_number()]
        given: dict[str, Any] = {
            "id": f"{claim.invocation.id}.{position}",
            "digest": values.digest(args),
            "addressee": "" if kind in LOCAL_KINDS else _pick(rng, ADDRESSEES),
            "timeout": None if kind is Kind.RUN else self._draw_timeout(rng),
            "retry": _pick(rng, [None, {"delays": [1, 2.5]}]),
        }
        if kind is Kind.RUN:
            state = _pick(rng, [State.RESOLVED, State.REJECTED, State.PENDING])
            given |= {"state": state, "failures": self._next_number()}
            given |= {"value": self._value()} if state is State.RESOLVED else {}
            given |= {"error": self._draw_error(rng, ())} if state is State.REJECTED else {}
        return Call(
            position=position,
            kind=kind,
            group=_pick(rng, GROUPS),
            function=_pick(rng, FUNCTIONS),
            args=values.encode(args, "args"),
            **given | fields,
        )

    def _made_by(self, claim: Claim) -> list[Call]:
        return self._made.get((claim.invocation.id, claim.fence), [])

    def _draw_timeout(self, rng: Random) -> timedelta | datetime | None:
        hours: int | None = _pick(rng, [None, None, None, 30, 60, -1, 1, 3])
        if hours is None:
            return None
        is_moment: bool = _pick(rng, [True, False])
        return self.now + hours * HOUR if is_moment else hours * HOUR

    def _draw_error(self, rng: Random, failed: Sequence[str]) -> dict[str, Any]:
        name = _pick(rng, ["PromiseRejected", "PromiseRejected", "WorkerLost"])
        error = {"type": name, "message": str(self._next_number()), "traceback": "", "cause": None}
        return error | ({"promises": list(failed)} if failed else {})

    def _value(self) -> str:
        return f'{{"b": 1e22, "a": {self._next_number()}}}'

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _in_phase(self, *phases: Phase) -> list[str]:
        return [row.id for row in self.store.pending() if row.phase in phases]

    def _of_kind(self, kind: Kind) -> list[str]:
        return [row.id for row in self._rows.values() if row.kind is kind]

    def _changed(self, id: str) -> bool:
        return self._before.get(id) != self._rows.get(id)

    def _note(self, effect: str, *, when: bool = True) -> None:
        assert effect in EFFECTS, effect
        self.effects[effect] += when
