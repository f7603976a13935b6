"""The rules of ``flows.store`` without SQL: the same operations on a table in memory. Each is atomic.

Names, arguments and returned data are those of ``flows.store``, so that both can be compared. What is left out:
traces, the attempts' table, the nodes' table (``recover`` is told which sessions are gone) and the notes on unserved
groups.
"""

import json
from collections.abc import Callable, Iterable, Sequence, Set
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from flows.conf import Settings
from flows.domain import values
from flows.domain.errors import PromiseConflict, PromiseNotFound
from flows.domain.promise import LOCAL_KINDS, Continuation, Kind, Phase, Promise, State
from flows.engine.decision import Call, Checkpoint, Failed, Invocation, Rejected, Resolved, SetAside, Suspended
from flows.store.claims import Claim, Holder, ReadyRef
from flows.store.outcomes import Committed, Outcome
from flows.store.promises import Start
from flows.store.sweeps import Recovered
from tests.simulation.table import Record, Table

_FREE = {"node_id": None, "session": None}


class Store:
    """Promises, and all that may happen to them. ``clock`` tells the time."""

    def __init__(self, clock: Callable[[], datetime], settings: Settings | None = None) -> None:
        self.table = Table()
        self._clock = clock
        self._settings = settings or Settings()

    # --- promises ---

    def start(self, call: Start) -> bool:
        """Start a root; return False if it had been started before, raise ``PromiseConflict`` if as another call."""
        if (found := self.table.rows.get(call.id)) is not None:
            if (found.kind, found.group, found.function, found.digest) == (
                Kind.ROOT,
                call.group,
                call.function,
                call.digest,
            ):
                return False
            raise PromiseConflict(f"promise {call.id!r} exists already")
        self.table.insert(self._ready(call, Kind.ROOT, root_id=call.id, deadline_at=self._deadline(call.timeout)))
        return True

    def get(self, promise_id: str) -> Promise:
        """Return the promise, settled first if it is past its deadline; raise ``PromiseNotFound``."""
        row = self.table.rows.get(promise_id)
        if row is None:
            raise PromiseNotFound(f"there is no promise {promise_id!r}")
        if row.state is State.PENDING and row.deadline_at <= self._clock():
            self._expire(row)
        return Promise(
            id=row.id,
            root_id=row.root_id,
            parent_id=row.parent_id,
            kind=row.kind,
            group=row.group,
            function=row.function,
            version=row.version,
            args=values.decode(row.args),
            tags=row.tags,
            state=row.state,
            phase=row.phase,
            value=_decoded(row.value),
            error=row.error,
            note=row.note,
            created_at=row.created_at,
            deadline_at=row.deadline_at,
            settled_at=row.settled_at,
        )

    def settle(
        self, promise_id: str, state: State, *, value: str | None = None, error: dict[str, Any] | None = None
    ) -> str | None:
        """Settle an external promise; return its parent's id, None if it was not pending and external."""
        row = self.table.rows.get(promise_id)
        if row is None or row.kind is not Kind.EXTERNAL or not self._is_open(row):
            return None
        self.table.update(row, state=state, value=value, error=error, settled_at=self._clock())
        return row.parent_id

    def cancel_tree(self, promise_id: str) -> tuple[int, str | None]:
        """Cancel what is pending of the tree; return how many that were, and the parent to be woken."""
        root = self.table.rows.get(promise_id)
        tree = [root] if root is not None and root.kind is not Kind.RUN else []
        for row in tree:
            tree += [child for child in self._children(row) if child.kind is not Kind.DETACHED]
        due = [row for row in tree if row.state is State.PENDING]
        for row in due:
            self.table.update(row, state=State.CANCELED, settled_at=self._clock(), phase=Phase.NONE, **_FREE)
        return len(due), root.parent_id if root in due and root is not None else None

    def retry(self, promise_id: str) -> list[ReadyRef]:
        """Make ready what was set aside or waits for its next attempt."""
        row, now = self.table.rows.get(promise_id), self._clock()
        is_waiting = row and row.phase is Phase.READY and row.ready_at and row.ready_at > now
        if row is None or not (row.phase is Phase.ASIDE or is_waiting):
            return []
        self.table.update(row, phase=Phase.READY, ready_at=now, sent_at=now, sends=0, note="")
        return [_ref(row)]

    def reopen(self, promise_id: str) -> list[ReadyRef]:
        """Make a rejected root or detached promise pending again, with the failed calls below that made it so."""
        root, now = self.table.rows.get(promise_id), self._clock()
        if root is None or root.kind not in (Kind.ROOT, Kind.DETACHED) or root.state is not State.REJECTED:
            return []
        failed = {root.id: root.settled_at}
        due = [root]
        for row in due:
            for child in self._children(row):
                ended_at = failed[row.id]
                if _fell_with(child, row, ended_at):
                    failed[child.id] = ended_at if child.state is State.CANCELED else child.settled_at
                    due.append(child)
        for row in due:
            self.table.reopen(
                row,
                state=State.PENDING,
                settled_at=None,
                error=None,
                note="",
                failures=0,
                losses=0,
                sends=0,
                deadline_at=now + (row.deadline_at - (row.reopened_at or row.created_at)),
                reopened_at=now,
                ready_at=_first_ready_at(row.kind, now),
                sent_at=now,
                phase=_first_phase(row.kind),
            )
        return [_ref(row) for row in due if row.phase is Phase.READY]

    # --- claims ---

    def claim_named(self, named: ReadyRef, holder: Holder) -> tuple[Claim | None, ReadyRef | None]:
        """Claim this promise, if it is ready, or suspended with nothing left to wait for; name another ready one."""
        row = self.table.rows.get(named.id)
        if row is None or (row.group, row.function) != (named.group, named.function):
            return None, None
        if not (self._is_open(row) and self._is_for(row, holder) and (self._is_due(row) or self._may_go_on(row))):
            return None, None
        others = self._ready_rows(named.group, holder)
        following = next((_ref(other) for other in others if other is not row), None)
        return self._claim(row, holder), following

    def claim_ready(
        self, group: str, functions: Sequence[str], limit: int, holder: Holder
    ) -> tuple[list[Claim], ReadyRef | None]:
        """Claim up to ``limit`` ready promises of ``group``, oldest first, and name the next one if there are more.

        What has killed a process before is claimed alone.
        """
        ready = self._ready_rows(group, holder)
        waiting = [row for row in ready if row.function in functions and self._is_open(row)]
        taken = list(takewhile(lambda row: not row.losses, waiting[:limit])) or waiting[:1]
        following = next((_ref(row) for row in waiting[len(taken) :]), None)
        return [self._claim(row, holder) for row in taken], following

    # --- outcomes ---

    def commit(self, outcomes: Sequence[Outcome], *, again: bool = False) -> dict[str, Committed]:
        """Write outcomes, each if its claim still holds; return those that were written, by promise id.

        ``again``: they may have been written before, without an answer.
        """
        together = [outcome for outcome in outcomes if not (outcome.marks or outcome.cancels)]
        written = self._commit(together, again=again)
        for outcome in outcomes:
            if outcome.marks or outcome.cancels:
                held = self._commit([outcome], again=again)
                written |= held
                for promise_id in outcome.cancels if held else ():
                    self.cancel_tree(promise_id)
        return written

    def commit_calls(self, claim: Claim, calls: Sequence[Call]) -> bool:
        """Write calls of an attempt that goes on; return False if its claim is gone."""
        return bool(self._commit([Outcome(claim=claim, calls=tuple(calls))]))

    # --- joins and sweeps ---

    def join(self, parent_ids: Iterable[str]) -> list[ReadyRef]:
        """Wake those of the promises that are suspended and have what they await; return them."""
        found = (self.table.rows.get(promise_id) for promise_id in sorted(set(parent_ids)))
        return [self._wake(row) for row in found if row is not None and self._may_go_on(row)]

    def join_missed(self, limit: int = 1000) -> list[ReadyRef]:
        """Wake suspended promises that nobody woke; return them."""
        return self.join(sorted(row.id for row in self.pending() if self._may_go_on(row))[:limit])

    def recover(self, lost: Set[tuple[int, int]], limit: int = 500) -> Recovered:
        """Take back the claims of lost sessions (node, session); reject what has lost too many workers."""
        claimed = [row for row in self.pending() if row.phase is Phase.CLAIMED]
        orphans = [row for row in claimed if (row.node_id, row.session) in lost]
        found = sorted(orphans, key=lambda row: (row.group, row.ready_at, row.id))[:limit]
        for row in found:
            self._take_back(row)
        rejected = [row for row in found if row.state is not State.PENDING]
        return Recovered(
            ready=[_ref(row) for row in found if row.state is State.PENDING],
            rejected_ids=[row.id for row in rejected],
            parent_ids=[row.parent_id for row in rejected if row.parent_id],
        )

    def expire_due(self, limit: int = 1000) -> list[str]:
        """Settle timers and deadlines that are due; return the ids of the parents."""
        due = [row for row in self.pending() if row.deadline_at <= self._clock()]
        due = sorted(due, key=lambda row: row.deadline_at)[:limit]
        for row in due:
            self._expire(row)
        return [row.parent_id for row in due if row.parent_id]

    def take_unsent(self, groups: Sequence[str], addresses: Sequence[str], limit: int = 10) -> list[ReadyRef]:
        """Return ready promises of ``groups`` that no worker came for: never sent, or their message is overdue.

        They count as sent now.
        """
        holder = Holder(node_id=0, session=0, addresses=tuple(addresses))
        ready = [row for group in groups for row in self._ready_rows(group, holder)]
        due = [row for row in ready if row.sent_at is None or self._overdue_at(row) < self._clock()]
        taken = sorted(due, key=_oldest)[:limit]
        for row in taken:
            self.table.update(row, sent_at=self._clock(), sends=min(row.sends + 1, 100))
        return [_ref(row) for row in taken]

    def not_sent(self, promise_ids: Iterable[str]) -> None:
        """Take back that messages were sent for the promises."""
        for row in map(self.table.rows.get, promise_ids):
            if row is not None and row.phase is Phase.READY:
                self.table.update(row, sent_at=None, sends=max(row.sends - 1, 0))

    # --- what a simulation asks ---

    def pending(self) -> list[Record]:
        """Return the promises that have not settled."""
        return list(self.table.pending.values())

    def next_due(self) -> datetime:
        """Return when, or since when, the first deadline, attempt or message is due."""
        times = [row.deadline_at for row in self.pending()]
        times += [self._overdue_at(row) for row in self.pending() if row.phase is Phase.READY]
        return min(times, default=self._clock())

    # --- the conditions and writes that the statements share ---

    def _is_open(self, row: Record) -> bool:
        return row.state is State.PENDING and row.deadline_at > self._clock()

    def _is_due(self, row: Record) -> bool:
        return row.phase is Phase.READY and row.ready_at is not None and row.ready_at <= self._clock()

    def _is_for(self, row: Record, holder: Holder) -> bool:
        return row.addressee in ("", *holder.addresses)

    def _may_go_on(self, row: Record) -> bool:
        """MAY_GO_ON, of a promise that is suspended."""
        if row.phase is not Phase.SUSPENDED:
            return False
        children = self.table.children.get(row.id, {}).values()
        return sum(child.state is State.PENDING and child.continuation != "" for child in children) <= row.wake_at

    def _holds(self, claim: Claim) -> bool:
        """The fence: whether the claim is still the one that counts."""
        row, holder = self.table.rows[claim.invocation.id], claim.holder
        current = (row.phase, row.fence, row.node_id, row.session)
        return self._is_open(row) and current == (Phase.CLAIMED, claim.fence, holder.node_id, holder.session)

    def _overdue_at(self, row: Record) -> datetime:
        assert row.ready_at is not None
        if row.sent_at is None:
            return row.ready_at
        wait: timedelta = self._settings.SWEEP_EVERY * (1 << min(row.sends, 5))
        return max(row.ready_at, row.sent_at + wait)

    def _children(self, row: Record) -> list[Record]:
        return [child for _, child in sorted(self.table.children.get(row.id, {}).items())]

    def _ready_rows(self, group: str, holder: Holder) -> list[Record]:
        rows = (row for row in self.table.pending.values() if row.phase is Phase.READY and row.group == group)
        ready = [row for row in rows if self._is_due(row) and self._is_for(row, holder)]
        return sorted(ready, key=_oldest)

    def _deadline(self, timeout: timedelta | datetime | None) -> datetime:
        if isinstance(timeout, datetime):
            return timeout
        return self._clock() + (timeout if timeout is not None else self._settings.TIMEOUT)

    def _ready(self, call: Start | Call, kind: Kind, *, root_id: str, deadline_at: datetime, **columns: Any) -> Record:
        now = self._clock()
        return Record(
            id=call.id,
            root_id=root_id,
            kind=kind,
            group=call.group,
            addressee=call.addressee,
            function=call.function,
            version=call.version,
            args=call.args,
            digest=call.digest,
            retry=json.loads(json.dumps(call.retry)),  # tuples come back as lists
            tags=call.tags or {},
            created_at=now,
            deadline_at=deadline_at,
            phase=_first_phase(kind),
            ready_at=_first_ready_at(kind, now),
            sent_at=now,
            **{"parent_id": None, "position": 0, **columns},
        )

    def _claim(self, row: Record, holder: Holder) -> Claim:
        now, fence = self._clock(), row.fence + 1
        held_by = {"node_id": holder.node_id, "session": holder.session}
        claimed = {"phase": Phase.CLAIMED, "fence": fence, "claimed_at": now, "ready_at": row.ready_at or now}
        self.table.update(row, **claimed, sends=0, note="", **held_by)
        invocation = Invocation(
            id=row.id,
            root_id=row.root_id,
            group=row.group,
            addressee=row.addressee,
            function=row.function,
            version=row.version,
            args=values.decode(row.args),
            retry=row.retry,
            deadline_at=row.deadline_at,
            failures=row.failures,
            attempt=fence,
            checkpoints=tuple(map(_checkpoint, self._children(row))),
        )
        return Claim(invocation=invocation, fence=fence, holder=holder, clock=now)

    def _commit(self, batch: Sequence[Outcome], *, again: bool = False) -> dict[str, Committed]:
        held = [(outcome, self.table.rows[outcome.claim.invocation.id]) for outcome in batch]
        held = [(outcome, row) for outcome, row in held if self._holds(outcome.claim)]
        calls = {
            id(outcome): [call for call in outcome.calls if not (again and self._is_written(row, call))]
            for outcome, row in held
        }
        for outcome, row in held:  # all or nothing
            for call in calls[id(outcome)]:
                if not call.is_known:
                    self.table.check_free(call.id, row.id, call.position)
        # As a statement sees them: who is suspended by it is woken by a join.
        suspended = {row.parent_id for _, row in held if self._is_suspended(row.parent_id)}
        for outcome, row in held:
            for call in calls[id(outcome)]:
                self._write_call(row, call, outcome)
            for promise_id, continuation in outcome.marks.items():
                child = self.table.rows.get(promise_id)
                if child is not None and child.state is State.PENDING:
                    self.table.update(child, continuation=continuation)
            self.table.update(row, **self._changes(row, outcome))
        ended = [row for _, row in held if row.state is not State.PENDING and row.continuation is Continuation.LINK]
        woken = {row.parent_id for row in ended} & suspended
        for parent_id in woken:
            self._wake(self.table.rows[parent_id or ""])
        return {row.id: self._committed(row, woken) for _, row in held}

    def _is_written(self, parent: Record, call: Call) -> bool:
        row = self.table.rows.get(call.id)
        is_same = row and (row.parent_id, row.kind, row.digest) == (parent.id, call.kind, call.digest)
        return bool(is_same) and not call.is_known

    def _write_call(self, parent: Record, call: Call, outcome: Outcome) -> None:
        known = self.table.rows.get(call.id)
        settled_at = None if call.state is State.PENDING else self._clock()
        outcome_now: dict[str, Any] = {"state": call.state, "value": call.value, "error": call.error}
        outcome_now |= {"failures": call.failures, "settled_at": settled_at}
        if call.is_known:
            if known is not None and known.state is State.PENDING:
                self.table.update(known, **outcome_now)
            return
        is_detached = call.kind is Kind.DETACHED
        limit = datetime.max.replace(tzinfo=parent.deadline_at.tzinfo) if is_detached else parent.deadline_at
        self.table.insert(
            self._ready(
                call,
                call.kind,
                root_id=call.id if is_detached else parent.root_id,
                deadline_at=limit if call.kind is Kind.RUN else min(limit, self._deadline(call.timeout)),
                parent_id=parent.id,
                position=call.position,
                continuation=outcome.continuation_of(call),
                **outcome_now,
            )
        )

    def _changes(self, row: Record, outcome: Outcome) -> dict[str, Any]:
        """What COMMIT sets in the row of the attempt itself."""
        now, invocation = self._clock(), outcome.claim.invocation
        ended = {"losses": 0, **_FREE}
        changes: dict[str, Any] = {
            "value": None,
            "error": None,
            "note": "",
            "failures": invocation.failures,
            "version": row.version if row.version is not None else invocation.version,
            "wake_at": 0,
            "ready_at": None,
            "sent_at": None,
        }
        match outcome.decision:
            case None:
                released = _FREE | {"phase": Phase.READY, "ready_at": now}
                return changes | (released if outcome.released else {"ready_at": row.ready_at})
            case Resolved(value=value):
                return changes | ended | _settled(State.RESOLVED, now) | {"value": value}
            case Rejected(error=error):
                return changes | ended | _settled(State.REJECTED, now) | {"error": error}
            case Failed(error=error, delay=delay, failures=failures):
                note = f"{error['type']}: {error['message']}"
                waits = {"phase": Phase.READY, "ready_at": now + delay, "error": error, "note": note}
                return changes | ended | waits | {"failures": failures}
            case SetAside(note=note):
                return changes | ended | {"phase": Phase.ASIDE, "note": note}
            case Suspended(awaits=awaits, first=first):
                return changes | ended | {"phase": Phase.SUSPENDED, "wake_at": len(awaits) - 1 if first else 0}

    def _is_suspended(self, promise_id: str | None) -> bool:
        row = self.table.rows.get(promise_id or "")
        return row is not None and row.phase is Phase.SUSPENDED

    def _committed(self, row: Record, woken: Set[str | None]) -> Committed:
        has_ended = row.continuation and row.state is not State.PENDING
        parent = self.table.rows.get(row.parent_id or "") if has_ended else None
        return Committed(
            id=row.id,
            continuation=row.continuation,
            parent=_ref(parent, was_suspended=True) if parent else None,
            woke_parent=parent is not None and parent.id in woken,
        )

    def _wake(self, row: Record) -> ReadyRef:
        self.table.update(row, phase=Phase.READY, ready_at=self._clock(), sent_at=self._clock(), sends=0)
        return _ref(row, was_suspended=True)

    def _take_back(self, row: Record) -> None:
        now, losses = self._clock(), row.losses + 1
        changes = {"losses": losses, "sends": 0, "sent_at": now, **_FREE}
        if losses < self._settings.MAX_LOSSES:
            self.table.update(row, **changes, phase=Phase.READY, ready_at=now)
            return
        message = f"{losses} attempts in a row ended without an outcome"
        error = {"type": "WorkerLost", "message": message, "traceback": "", "cause": None}
        self.table.update(row, **changes | _settled(State.REJECTED, now) | {"ready_at": None, "error": error})

    def _expire(self, row: Record) -> None:
        is_timer = row.kind is Kind.TIMER
        settled = _settled(State.RESOLVED if is_timer else State.TIMEDOUT, row.deadline_at)
        self.table.update(row, **settled, **_FREE, value="null" if is_timer else None)


def _settled(state: State, at: datetime) -> dict[str, Any]:
    return {"state": state, "phase": Phase.NONE, "settled_at": at}


def _first_phase(kind: Kind) -> Phase:
    return Phase.NONE if kind in LOCAL_KINDS else Phase.READY


def _first_ready_at(kind: Kind, now: datetime) -> datetime | None:
    return None if kind in LOCAL_KINDS else now


def _fell_with(child: Record, parent: Record, ended_at: datetime | None) -> bool:
    """Whether a promise failed because of this call, or the call ended because the promise was given up."""
    if child.kind is Kind.DETACHED or child.settled_at is None or ended_at is None:
        return False
    error = parent.error or {}
    if child.state in (State.REJECTED, State.TIMEDOUT) and child.id in error.get("promises", ()):
        return True
    is_given_up = parent.state is State.CANCELED or error.get("type") == "WorkerLost"
    is_overdue = parent.state is State.TIMEDOUT
    fell = {State.CANCELED: is_given_up, State.TIMEDOUT: is_overdue}
    return child.settled_at >= ended_at and fell.get(child.state, False)


def _oldest(row: Record) -> tuple[Any, str]:
    return row.ready_at, row.id


def _ref(row: Record, *, was_suspended: bool = False) -> ReadyRef:
    return ReadyRef(
        id=row.id, group=row.group, function=row.function, addressee=row.addressee, was_suspended=was_suspended
    )


def _decoded(text: str | None) -> Any:
    return None if text is None else values.decode(text)


def _checkpoint(row: Record) -> Checkpoint:
    return Checkpoint(
        id=row.id,
        position=row.position,
        kind=row.kind,
        group=row.group,
        function=row.function,
        digest=row.digest,
        state=row.state,
        value=row.value,
        error=row.error,
        failures=row.failures,
        is_awaited=bool(row.continuation),
        settled_at=row.settled_at.timestamp() if row.settled_at else None,
    )


def _ready_at(row: Record) -> datetime:
    assert row.ready_at is not None
    return row.ready_at
