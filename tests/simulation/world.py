"""A cluster in one process: workers, messages, time and faults, all picked by one seeded random.

What runs is the real engine on the rules of the store. Workers take turns; whatever may happen between two of their
effects happens at a named boundary: there a worker can crash, or pause while others go on, even past its lease.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flows.canvas import is_drained
from flows.conf import Settings
from flows.domain import values
from flows.domain.errors import AttemptFenced
from flows.domain.promise import LOCAL_KINDS, Continuation, Kind, Promise, State, describe_error
from flows.engine.decision import Call, Decision, Resolved
from flows.engine.registry import registry
from flows.engine.replay import Runner
from flows.engine.requests import Options, request
from flows.store.claims import Claim, Holder, ReadyRef
from flows.store.outcomes import Committed, Outcome
from flows.store.promises import Start
from flows.worker import attempts
from tests.simulation.store import Store
from tests.simulation.table import Record

TICK = timedelta(milliseconds=1)
MAX_STEPS = 20_000
MAX_DEPTH = 3
# How often a message for an earlier call of the function is on its way, and none is sent.
ANNOUNCED = 0.5
# How often a worker waits for a call, and how often one comes to a worker that waits.
WAITING = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How likely each fault is wherever it can happen, from 0 to 1; and how many there may be in all.

    ``crash``: a worker, a sweep or a caller ends at a boundary. ``pause``: others go on while a worker stands still.
    ``freeze``: the same, and its claims are taken from it. ``lost``, ``doubled``: a message. ``refused``: the messages
    of a sweep, by a broker that is away. ``early``: no fault; a group commit comes before it must.
    """

    crash: float = 0.0
    pause: float = 0.0
    freeze: float = 0.0
    lost: float = 0.0
    doubled: float = 0.0
    refused: float = 0.0
    early: float = 0.25
    most: int = 20


class Crash(SystemExit):
    """The end of a process at a boundary, as a pool ends one: with a negative code, which no attempt takes for its own.

    Clean-up of user code does run, which a real crash would not do.
    """

    def __init__(self, where: str) -> None:
        super().__init__(-9)
        self.where = where


class StuckError(AssertionError):
    """Promises are pending and no end is in sight."""


@dataclass(frozen=True, slots=True)
class Node:
    """One worker node, of one group."""

    id: int
    group: str

    @property
    def addresses(self) -> tuple[str, str]:
        """What calls to this very node may name: its process id and its Celery name."""
        return str(1000 + self.id), f"{self.group}@{self.id}"


class World:
    """Nodes, their messages, and the clock.

    ``answers`` settle external promises by name: with a value, or with an exception. ``transaction`` is what an atomic
    step runs in; if it is Django's, give ``faults`` without pauses: workers here share one connection.
    """

    def __init__(
        self,
        groups: Sequence[str],
        *,
        seed: int = 0,
        faults: Faults | None = None,
        answers: Mapping[str, Any] | None = None,
        transaction: Callable[[], AbstractContextManager[Any]] = nullcontext,
        settings: Settings | None = None,
    ) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.store = Store(lambda: self.now, settings or Settings(MAX_LOSSES=1000))
        self.faults = faults or Faults()
        self.transaction = transaction
        self.random = random.Random(seed)
        self.nodes = [Node(index, group) for index, group in enumerate(sorted([*groups, *groups]), start=1)]
        self.wire: list[ReadyRef] = []
        self.trace: list[tuple[datetime, str, str]] = []
        self.boundaries: list[str] = []
        # How often a claim on each promise was taken back: no more often can its steps run again.
        self.losses: Counter[str] = Counter()
        self._answers = answers or {}
        self._lost_sessions: set[tuple[int, int]] = set()
        self._sessions = 0
        self._faults_left = self.faults.most
        self._crash_at = 0
        self._depth = 0

    def run(self, promise_id: str, function: Any, *args: Any, crash_at: int = 0, **options: Any) -> Promise:
        """Start a flow, run until every promise has settled, and return the flow's.

        ``crash_at`` makes whoever passes that boundary crash there; ``boundaries`` has all names, counted from 1.
        """
        self._crash_at = crash_at
        self._act(self._start, Start(id=promise_id, **request(function, args, Options(**options))))  # type: ignore[typeddict-item]  # refused there
        for _ in range(MAX_STEPS):
            if self.store.table.breaches:
                raise self.store.table.breaches[0]
            if not self.store.pending():
                return self.store.get(promise_id)
            self._step()
        raise StuckError(f"{len(self.store.pending())} promises are pending after {MAX_STEPS} steps: {self.trace[-9:]}")

    def boundary(self, where: str, worker: "Worker | None" = None) -> None:
        """Pass a point between two effects: crash there, or let others go on."""
        self.boundaries.append(where)
        self.now += TICK
        if len(self.boundaries) == self._crash_at or self.strikes(self.faults.crash):
            self.note("crash", where)
            raise Crash(where)
        if worker is not None and self._depth < MAX_DEPTH:
            if self.strikes(self.faults.freeze):
                self._freeze(worker, where)
            elif self.strikes(self.faults.pause):
                self._meanwhile(self.random.randint(1, 3))

    def wait(self) -> None:
        """Let others go on while a worker waits for calls."""
        if self.wire and self._depth < MAX_DEPTH:
            self._meanwhile(self.random.randint(1, 3))

    def send(self, messages: Iterable[ReadyRef]) -> None:
        """Put messages on the wire; some get lost or doubled."""
        for message in messages:
            copies = 0 if self.strikes(self.faults.lost) else 2 if self.strikes(self.faults.doubled) else 1
            self.wire += [message] * copies

    def needed(self, ready: Iterable[ReadyRef]) -> list[ReadyRef]:
        """As ``flows.canvas.needed``; it is drawn whether a worker waits, and whether an earlier token lies there.

        To be taken by a worker that waits is like a message that names nothing. The message that announced the earlier
        token may be lost: then nobody comes.
        """
        first: dict[tuple[str, str], ReadyRef] = {}
        alone = []
        for each in ready:
            if is_drained(each):
                first.setdefault((each.group, each.function), each)
            else:
                alone.append(each)
        taken = [each for each in first.values() if self.random.random() < WAITING]
        self.send(each._replace(id="") for each in taken)
        others = [each for each in first.values() if each not in taken]
        return [*alone, *(each for each in others if self.random.random() >= ANNOUNCED)]

    def strikes(self, likelihood: float) -> bool:
        """Draw a fault; there is an end to them."""
        is_hit = likelihood > 0 and self._faults_left > 0 and self.random.random() < likelihood
        self._faults_left -= is_hit
        return is_hit

    def is_early(self) -> bool:
        """Draw whether a group commit comes now."""
        return self.random.random() < self.faults.early

    def note(self, what: str, whom: str) -> None:
        """Write to the trace."""
        self.trace.append((self.now, what, whom))

    def _step(self) -> None:
        """Do one of the things that can happen; if there are none, let time pass until there are."""
        if self.wire or self._unanswered():
            self._act(self._something)
        elif not any(self._act(self._sweep, node) for node in self.nodes):
            self.now = max(self.now + TICK, self.store.next_due())

    def _something(self) -> None:
        can_happen: list[Callable[[], Any]] = [lambda: self._sweep(self.random.choice(self.nodes))]
        if self.wire:
            can_happen += [lambda: self._deliver(self.wire.pop(self.random.randrange(len(self.wire))))] * 4
        if waiting := self._unanswered():
            can_happen.append(lambda: self._answer(self.random.choice(waiting)))
        self.random.choice(can_happen)()

    def _act(self, action: Callable[..., Any], *args: Any) -> Any:
        """Do something; return whether it did any work, which whoever crashes may have done."""
        try:
            return action(*args)
        except Crash:
            return True

    def _start(self, call: Start) -> None:
        self.store.start(call)
        self.boundary("after start")
        self.send([ReadyRef(id=call.id, group=call.group, function=call.function, addressee=call.addressee)])

    def _deliver(self, message: ReadyRef) -> None:
        nodes = [node for node in self.nodes if node.group == message.group]
        if message.addressee:
            nodes = [node for node in nodes if message.addressee in node.addresses]
        if not nodes:
            return
        self._sessions += 1
        worker = Worker(self, self.random.choice(nodes), self._sessions)
        self.note("deliver", message.id)
        try:
            worker.handle(message)
        except Crash:
            self._lost_sessions.add(worker.session)
            self.wire += [message] * self.random.randint(0, 1)  # Celery sends some again that were not acknowledged
            raise

    def _sweep(self, node: Node) -> bool:
        """As ``flows.worker.sweep``; return False if there was nothing to do."""
        recovered = self.store.recover(self._lost_sessions)
        self.losses.update(ref.id for ref in recovered.ready)
        for promise_id in recovered.rejected_ids:
            self.boundary("before cancel")
            self.store.cancel_tree(promise_id)
        parents = [*recovered.parent_ids, *self.store.expire_due()]
        if parents:
            self.boundary("expired, before join")
        woken = [*self.store.join(parents), *self.store.join_missed()]
        if recovered.ready or woken:
            self.boundary("swept, before send")
        self.send([*recovered.ready, *self.needed(woken)])
        unsent = self.store.take_unsent([node.group], node.addresses)
        if unsent:
            self.boundary("noted as sent, before send")
            if self.strikes(self.faults.refused):
                self.store.not_sent(ref.id for ref in unsent)
            else:
                self.send(unsent)
        return bool(recovered.ready or parents or woken or unsent)

    def _unanswered(self) -> list[Record]:
        if not self._answers:
            return []
        return [row for row in self.store.pending() if row.kind is Kind.EXTERNAL and row.function in self._answers]

    def _answer(self, promise: Record) -> None:
        """As ``flows.resolve`` and ``flows.reject``."""
        answer = self._answers[promise.function]
        if isinstance(answer, BaseException):
            parent_id = self.store.settle(promise.id, State.REJECTED, error=describe_error(answer))
        else:
            parent_id = self.store.settle(promise.id, State.RESOLVED, value=values.encode(answer, "value"))
        self.note("answer", promise.id)
        self.boundary("answered, before join")
        self.send(self.store.join([parent_id] if parent_id else []))

    def _freeze(self, worker: "Worker", where: str) -> None:
        """Have the worker stand still past its lease: a sweep takes its claims, and others run them."""
        self.note("freeze", where)
        self._lost_sessions.add(worker.session)
        self._act(self._sweep, self.random.choice(self.nodes))
        self._meanwhile(self.random.randint(1, 6))
        self._lost_sessions.discard(worker.session)

    def _meanwhile(self, steps: int) -> None:
        self._depth += 1
        for _ in range(steps):
            self._act(self._something)
        self._depth -= 1


class Worker:
    """One session of a node, from the message that wakes it to the end of its drain; the journal of what it runs.

    Does what ``flows.worker.task``, ``drain``, ``ledger`` and ``publish`` do.
    """

    def __init__(self, world: World, node: Node, session: int) -> None:
        self.world = world
        self.session = (node.id, session)
        self._holder = Holder(node_id=node.id, session=session, addresses=node.addresses)
        self._finished: list[Outcome] = []
        self._claim: Claim | None = None
        self._calls: list[Call] = []
        self._cancels: list[str] = []
        self._awaited_before: frozenset[str] = frozenset()
        self._is_fenced = False
        self._stays_for = ""
        self._is_needed_again = False
        self._runner = Runner()

    def handle(self, message: ReadyRef) -> None:
        """Run what the message names, then what else is ready."""
        claim, following = self.world.store.claim_named(message, self._holder)
        self._boundary("after claim")
        if claim is not None:
            self._run_named(claim)
        self._drain(message.group, looks=claim is None or following is not None)
        self._runner.close()
        self._boundary("before ack")

    def begin(self, claim: Claim) -> None:
        """Begin an attempt."""
        self._claim, self._calls, self._cancels, self._is_fenced = claim, [], [], False
        self._awaited_before = frozenset()

    def abandon(self) -> None:
        """End an attempt that was fenced or broken off."""
        self._claim, self._calls, self._cancels = None, [], []

    def record(self, call: Call) -> None:
        """Take a call of the running attempt; commit now and then."""
        self._boundary("after step" if call.kind is Kind.RUN else "before record")
        self._calls.append(call)
        if self.world.is_early():
            self._flush()
        if self._is_fenced:
            raise AttemptFenced

    def commit_with(self, step: Callable[[], Call]) -> Call:
        """Run an atomic step in one transaction with the commit of its record."""
        self._flush()
        if self._is_fenced:
            raise AttemptFenced
        self._boundary("before atomic step")
        with self.world.transaction():
            call = step()
            self._boundary("after atomic step, before its commit")
            if not self.world.store.commit_calls(self._running().claim, [call]):
                self.world.note("fenced", call.id)
                raise AttemptFenced
        self._boundary("after atomic commit")
        return call

    def cancel(self, promise_ids: Iterable[str]) -> None:
        """Take calls to be canceled with what is recorded next."""
        self._cancels += promise_ids

    def before_user_code(self) -> None:
        """Take note that user code goes on; what is recorded is committed now and then anyway."""

    def now(self) -> datetime:
        """Tell the time."""
        return self.world.now

    def _run_named(self, claim: Claim) -> None:
        decision = self._attempt(claim)
        if decision is None:
            return
        self._end(decision)
        is_resolved, promise_id = isinstance(decision, Resolved), claim.invocation.id
        committed = self._persist(celery_continues=promise_id if is_resolved else "").get(promise_id)
        if is_resolved and committed is not None and committed.parent is not None:
            self._boundary("before continuation")
            self.world.send(self._continuation(committed, committed.parent))

    def _continuation(self, committed: Committed, parent: ReadyRef) -> list[ReadyRef]:
        if committed.continuation is not Continuation.LINK:
            return self.world.needed(self.world.store.join([parent.id]))
        return self.world.needed([parent]) if committed.woke_parent else [parent]

    def _drain(self, group: str, *, looks: bool) -> None:
        functions = [function.name for function in registry if function.group == group]
        has_woken = False
        # Who does not look waits; it is drawn whether something is handed over.
        while looks or self.world.random.random() < WAITING:
            if not looks:
                self.world.wait()
            limit = self.world.random.randint(1, 4)
            claims, following = self.world.store.claim_ready(group, functions, limit, self._holder)
            if following is not None and not has_woken:
                has_woken = True
                self.world.send(self.world.needed([following]))
            looks = following is not None
            if claims:
                self._boundary("after claims")
                looks |= self._run_batch(deque(claims), group)

    def _run_batch(self, queue: deque[Claim], group: str) -> bool:
        while queue:
            decision = self._attempt(queue.popleft())
            if decision is not None:
                self._end(decision)
            if self.world.is_early():  # as the watchdog does when one attempt takes long
                self._finished += [Outcome(claim=claim, released=True) for claim in queue]
                queue.clear()
                self._flush()
        self._stays_for, self._is_needed_again = group, False
        self._flush()
        self._stays_for = ""
        return self._is_needed_again

    def _attempt(self, claim: Claim) -> Decision | None:
        attempts._thread.runner = self._runner
        decision = attempts.run_attempt(claim, self)  # type: ignore[arg-type]  # all that it needs of a ledger
        self.world.note(type(decision).__name__ if decision else "broken off", claim.invocation.id)
        return decision

    def _end(self, decision: Decision) -> None:
        self._finished.append(self._running(decision))
        self._claim, self._calls, self._cancels = None, [], []

    def _running(self, decision: Decision | None = None) -> Outcome:
        assert self._claim is not None
        return Outcome(
            claim=self._claim,
            calls=tuple(self._calls),
            cancels=tuple(self._cancels),
            decision=decision,
            awaited_before=self._awaited_before,
        )

    def _flush(self) -> None:
        self._persist()

    def _persist(self, celery_continues: str = "") -> dict[str, Committed]:
        running = [self._running()] if self._calls or self._cancels else []
        batch = [*self._finished, *running]
        if not batch:
            return {}
        self._boundary("before commit")
        written = self.world.store.commit(batch)
        self._finished, self._calls, self._cancels = [], [], []
        for outcome in batch:
            if _id(outcome) not in written:
                self.world.note("fenced", _id(outcome))
        for outcome in running:
            self._awaited_before |= {call.id for call in outcome.calls if outcome.continuation_of(call)}
            self._is_fenced = _id(outcome) not in written
        self._boundary("after commit")
        self._publish([outcome for outcome in batch if _id(outcome) in written], written, celery_continues)
        return written

    def _publish(self, held: Sequence[Outcome], written: Mapping[str, Committed], celery_continues: str) -> None:
        """Wake the parents of what has settled, and send what became ready."""
        ended = [each for each in written.values() if each.parent and each.id != celery_continues]
        to_join = [each.parent.id for each in ended if each.parent and not each.woke_parent]
        to_join += [_id(each) for each in held if _is_doubtful(each)]
        woken = [each.parent for each in ended if each.parent and each.woke_parent]
        if to_join:
            self._boundary("before join")
            woken += self.world.store.join(to_join)
            self._boundary("after join")
        calls = [call for outcome in held for call in outcome.calls if call.kind not in LOCAL_KINDS]
        released = [outcome.claim.invocation for outcome in held if outcome.released]
        ready = [*map(_ref, calls), *woken, *map(_ref, released)]
        others = [ref for ref in ready if ref.addressee or ref.group != self._stays_for]
        self._is_needed_again |= len(others) < len(ready)
        messages = self.world.needed(others)
        self.world.send(messages)
        if messages:
            self._boundary("after send")

    def _boundary(self, where: str) -> None:
        self.world.boundary(where, self)


def _id(outcome: Outcome) -> str:
    return outcome.claim.invocation.id


def _is_doubtful(outcome: Outcome) -> bool:
    """Whether what it awaits may have settled before its suspension could be seen."""
    new = {call.id for call in outcome.calls if not call.is_known}
    return not new.issuperset(outcome.awaits) or bool(outcome.cancels)


def _ref(call: Any) -> ReadyRef:
    return ReadyRef(id=call.id, group=call.group, function=call.function, addressee=call.addressee)
