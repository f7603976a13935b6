"""The simulated store and the real one agree: after any operation the same answers and the same rows."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, TypeVar

import pytest
from django.db import IntegrityError

from flows.conf import Settings
from flows.domain.errors import PromiseConflict, PromiseNotFound
from flows.domain.promise import Phase, Promise, State
from flows.engine.decision import Call
from flows.store import cancel, claims, joins, nodes, outcomes, promises, retries, sql, sweeps
from flows.store.claims import Claim, Holder, ReadyRef
from flows.store.memory import RECORD_BYTES, Memory
from flows.store.nodes import NodeInfo
from flows.store.outcomes import Committed, Outcome
from flows.store.promises import Start
from flows.store.sweeps import Recovered
from tests.simulation.machine import EFFECTS, HOLDERS, SETTINGS, TICK, run
from tests.simulation.store import Store
from tests.simulation.table import Record

COLUMNS = [field.name for field in fields(Record)]
TIMES = ("created_at", "deadline_at", "reopened_at", "settled_at", "ready_at", "sent_at", "claimed_at")
JSON_TEXTS = ("args", "value")
T = TypeVar("T")
APART = TICK / 40


class MovingMemory(Memory):
    """What the real store need not read again, though all times in its rows are moved."""

    def move(self, by: timedelta) -> None:
        for promise_id, known in self._known.items():
            created_at = datetime.fromtimestamp(known.created_at, UTC) + by
            self._known[promise_id] = replace(known, created_at=created_at.timestamp())
        self._clock += by.total_seconds()
        for group, looked in self._looked.items():
            self._looked[group] = replace(looked, until=looked.until + by.total_seconds())


class Mirror(Store):
    """Both stores at once, on the same table of the simulation.

    The real one has a clock of its own: before each operation all times in its rows are moved, so that they are as far
    from its now as the simulated ones are from theirs. How long it then takes is no matter, up to half a tick.
    """

    def __init__(self, clock: Callable[[], datetime], settings: Settings) -> None:
        super().__init__(clock, settings)
        self._simulated = Store(clock, settings)
        self._simulated.table = self.table
        self._now = clock
        self._ahead = timedelta(0)
        # Of each holder, by the functions that it asks for: a thread always asks for the same.
        self._memories: defaultdict[tuple[Holder, tuple[str, ...]], MovingMemory] = defaultdict(
            lambda: MovingMemory(worth=0, most_bytes=3 * RECORD_BYTES)
        )
        sql.rows("TRUNCATE flows_promise, flows_attempt, flows_node")
        for holder in HOLDERS:
            info = NodeInfo(name=holder.addresses[-1], groups=("g", "h"), hostname="test", pid=int(holder.addresses[0]))
            nodes.beat(holder.node_id, info)
            # One connection holds the locks of all sessions.
            if not sql.rows(_HELD, space=nodes.LOCK_SPACE + holder.node_id, session=holder.session):
                assert nodes.hold_session_lock(holder.node_id, holder.session)

    def start(self, call: Start) -> bool:
        return self._both(
            lambda s: s.start(call), lambda: promises.start(replace(call, timeout=self._moved(call.timeout)))
        )

    def get(self, promise_id: str) -> Promise:
        return self._both(lambda s: s.get(promise_id), lambda: promises.get(promise_id))

    def settle(
        self, promise_id: str, state: State, *, value: str | None = None, error: dict[str, Any] | None = None
    ) -> str | None:
        return self._both(
            lambda s: s.settle(promise_id, state, value=value, error=error),
            lambda: promises.settle(promise_id, state, value=value, error=error),
        )

    def cancel_tree(self, promise_id: str) -> tuple[int, str | None]:
        return self._both(lambda s: s.cancel_tree(promise_id), lambda: cancel.cancel_tree(promise_id))

    def retry(self, promise_id: str) -> list[ReadyRef]:
        return self._both(lambda s: s.retry(promise_id), lambda: retries.retry(promise_id))

    def reopen(self, promise_id: str) -> list[ReadyRef]:
        return self._both(lambda s: s.reopen(promise_id), lambda: retries.reopen(promise_id))

    def claim_named(self, named: ReadyRef, holder: Holder) -> tuple[Claim | None, ReadyRef | None]:
        memory = self._memories[holder, ()]
        return self._both(lambda s: s.claim_named(named, holder), lambda: claims.claim_named(named, holder, memory))

    def claim_ready(
        self, group: str, functions: Sequence[str], limit: int, holder: Holder
    ) -> tuple[list[Claim], ReadyRef | None]:
        memory = self._memories[holder, tuple(functions)]
        return self._both(
            lambda s: s.claim_ready(group, functions, limit, holder),
            lambda: claims.claim_ready(group, functions, limit, holder, memory),
        )

    def commit(self, outcomes_: Sequence[Outcome], *, again: bool = False) -> dict[str, Committed]:
        return self._both(
            lambda s: s.commit(outcomes_, again=again),
            lambda: outcomes.commit(
                [replace(outcome, calls=self._moved_calls(outcome.calls)) for outcome in outcomes_], again=again
            ),
        )

    def commit_calls(self, claim: Claim, calls: Sequence[Call]) -> bool:
        return self._both(
            lambda s: s.commit_calls(claim, calls),
            lambda: outcomes.commit_calls(claim, self._moved_calls(calls)),
        )

    def join(self, parent_ids: Iterable[str]) -> list[ReadyRef]:
        ids = list(parent_ids)
        return self._both(lambda s: s.join(ids), lambda: joins.join(ids))

    def join_missed(self, limit: int = 1000) -> list[ReadyRef]:
        return self._both(lambda s: s.join_missed(limit), lambda: joins.join_missed(limit))

    def recover(self, lost: Set[tuple[int, int]], limit: int = 500) -> Recovered:
        def real() -> Recovered:
            for node_id, session in lost:
                nodes.release_session_lock(node_id, session)
            found = sweeps.recover(limit)
            for node_id, session in lost:
                nodes.hold_session_lock(node_id, session)
            return found

        return self._both(lambda s: s.recover(lost, limit), real)

    def expire_due(self, limit: int = 1000) -> list[str]:
        return self._both(lambda s: s.expire_due(limit), lambda: sweeps.expire_due(limit))

    def take_unsent(self, groups: Sequence[str], addresses: Sequence[str], limit: int = 10) -> list[ReadyRef]:
        return self._both(
            lambda s: s.take_unsent(groups, addresses, limit), lambda: sweeps.take_unsent(groups, addresses, limit)
        )

    def not_sent(self, promise_ids: Iterable[str]) -> None:
        ids = list(promise_ids)
        self._both(lambda s: s.not_sent(ids), lambda: sweeps.not_sent(ids))

    def _both(self, simulated: Callable[[Store], T], real: Callable[[], T]) -> T:
        self._move_times()
        mine, theirs = _answer(lambda: simulated(self._simulated)), _answer(real)
        assert _told(mine) == _told(theirs)
        self._compare_rows()
        self._part_ties()
        if isinstance(mine, Exception):
            raise mine
        return mine

    def _move_times(self) -> None:
        ahead = sql.rows("SELECT clock_timestamp() AS now")[0]["now"] - self._now()
        columns = ", ".join(f"{column} = {column} + %(by)s" for column in TIMES)
        sql.rows(f"UPDATE flows_promise SET {columns}", by=ahead - self._ahead)
        for memory in self._memories.values():
            memory.move(ahead - self._ahead)
        self._ahead = ahead

    def _moved(self, timeout: timedelta | datetime | None) -> timedelta | datetime | None:
        return timeout + self._ahead if isinstance(timeout, datetime) else timeout

    def _moved_calls(self, calls: Iterable[Call]) -> tuple[Call, ...]:
        return tuple(call._replace(timeout=self._moved(call.timeout)) for call in calls)

    def _compare_rows(self) -> None:
        theirs = {row["id"]: row for row in sql.rows("SELECT * FROM flows_promise")}
        assert self.table.rows.keys() == theirs.keys()
        for id, row in self.table.rows.items():
            differ = [name for name in COLUMNS if not self._agree(name, getattr(row, name), theirs[id][name])]
            assert not differ, f"{id}: {', '.join(differ)} of {row} is not that of {theirs[id]}"

    def _agree(self, column: str, mine: Any, real: Any) -> bool:
        if column in TIMES and None not in (mine, real):
            return bool(abs(mine + self._ahead - real) < TICK / 2)
        if column in JSON_TEXTS and mine is not None:
            return bool(json.loads(mine) == real)
        return bool(mine == real)

    def _part_ties(self) -> None:
        """Set those apart that became ready in one operation, in both stores: PostgreSQL may take any first."""
        ready = sorted((row for row in self.pending() if row.phase is Phase.READY), key=_ready_at_and_id)
        for _, tied in groupby(ready, key=lambda row: row.ready_at):
            for earlier, row in enumerate(sorted(tied, key=lambda row: row.id, reverse=True)):
                if earlier:
                    row.ready_at = row.ready_at and row.ready_at - earlier * APART
                    sql.rows(_EARLIER, id=row.id, by=earlier * APART)


_HELD = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
    AND classid::bigint = %(space)s AND objid::bigint = %(session)s
"""
_EARLIER = "UPDATE flows_promise SET ready_at = ready_at - %(by)s WHERE id = %(id)s"


def _ready_at_and_id(row: Record) -> Any:
    return row.ready_at, row.id


def _answer(ask: Callable[[], T]) -> T | Exception:
    try:
        return ask()
    except (PromiseConflict, PromiseNotFound, IntegrityError) as error:
        return error


def _told(answer: Any) -> Any:
    """What an answer says, without the times in it, and in one order where the order says nothing."""
    match answer:
        case Exception():
            told: Any = type(answer)
        case Promise():
            told = {name: value for name, value in asdict(answer).items() if name not in TIMES}
        case Claim(invocation=invocation, fence=fence, holder=holder):
            known = tuple(each._replace(settled_at=None) for each in invocation.checkpoints)
            told = invocation._asdict() | {"deadline_at": None, "checkpoints": known}, fence, holder
        case Recovered(ready=ready, rejected_ids=rejected_ids, parent_ids=parent_ids):
            told = _told(ready), sorted(rejected_ids), sorted(parent_ids)
        case list():
            told = sorted(map(repr, map(_told, answer)))
        case tuple():
            told = tuple(map(_told, answer))
        case _:
            told = answer
    return told


@pytest.mark.django_db(transaction=True)
def test_simulated_and_real_store_agree(settings):
    settings.FLOWS = asdict(SETTINGS)
    assert sorted(EFFECTS - run(Mirror, examples=80)) == []
