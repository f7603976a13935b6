"""What a thread that claims remembers, so that its next claim reads less: final records, and how far it has looked."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flows.domain.promise import Kind, State
from flows.engine.decision import Checkpoint

# Fewer records of a promise are read again: that costs less than naming them.
WORTH = 20
MOST_PROMISES = 64
MOST_BYTES = 8 * 1024 * 1024
# Of a record, beside its value.
RECORD_BYTES = 500
# By so much may be seen late what became ready: a commit may wait for the disk, or for a standby.
LATE_S = 1.0
# How soon a look goes from the beginning again, and how many times as long as that took must have passed, too.
LOOK_BACK_EVERY_S = 1.0
LOOK_BACK_REST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    created_at: float
    records: tuple[Checkpoint, ...] = ()
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    until: float
    looks_back_at_s: float


class Memory:
    """How far each group's ready promises were claimed, and the first calls of some promises, up to what may change.

    Ready promises are claimed oldest first, so those that are left became ready later. What was seen late, because its
    start waited in a long transaction, say, is found by a look from the beginning: now and then one is due.

    What has resolved stays so, and of a detached call its caller knows the id alone. An id that was purged and started
    again is told by when its promise was created. What was not asked for longest is forgotten first, and only when a
    claim is about to be made: its answer leaves out whatever it was told to be known.
    """

    def __init__(self, *, worth: int = WORTH, most_bytes: int = MOST_BYTES) -> None:
        self._worth = worth
        self._most_bytes = most_bytes
        self._known: dict[str, _Known] = {}  # the last used at the end
        self._bytes = 0
        self._looked: dict[str, _Looked] = {}
        self._clock = 0.0

    def told(self, clock: float) -> None:
        """Take note of the database's time, in epoch seconds."""
        self._clock = clock

    def since(self, group: str, *, looks_back: bool = True) -> float:
        """Return the time, in epoch seconds, from which on a claim should look for what is ready; 0: the beginning."""
        looked = self._looked.get(group)
        if looked is None or (looks_back and time.monotonic() >= looked.looks_back_at_s):
            return 0.0
        return max(0.0, looked.until - LATE_S)

    def looked(self, group: str, since: float, took_s: float, ready_at: float | None) -> None:
        """Take note of a look: how long it took, and when the last promise that it claimed became ready.

        None: it found nothing, so nothing is left from before the last time that the database told. What is noted may
        be earlier than before: something late was found, or the clock was put back.
        """
        until = self._clock if ready_at is None else ready_at
        if since:
            self._looked[group] = replace(self._looked[group], until=until)
        else:
            rests_for_s = max(LOOK_BACK_EVERY_S, LOOK_BACK_REST * took_s)
            self._looked[group] = _Looked(until=until, looks_back_at_s=time.monotonic() + rests_for_s)

    def params(self) -> dict[str, str]:
        """Return what the statements of a claim are told: of which promises how many calls are known."""
        while len(self._known) > MOST_PROMISES or self._bytes > self._most_bytes:
            self._forget(next(iter(self._known)))
        known = [
            {"id": promise_id, "created_at": known.created_at, "count": len(known.records)}
            for promise_id, known in self._known.items()
        ]
        return {"known": json.dumps(known) if known else "[]"}

    def complete(self, promise_id: str, created_at: float, read: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
        """Return all calls of a promise; those were ``read`` that were not known. Keep what is final now.

        ``created_at`` is in epoch seconds.
        """
        known = self._forget(promise_id)
        if known is None or known.created_at != created_at:
            known = _Known(created_at=created_at)
        whole = (*known.records, *read)
        final = [*known.records]
        for record in read:
            if record.position != len(final) or not _is_final(record):
                break
            final.append(record)
        if len(final) >= self._worth:
            added = sum(RECORD_BYTES + len(record.value or "") for record in final[len(known.records) :])
            known = _Known(created_at=created_at, records=tuple(final), bytes=known.bytes + added)
            self._known[promise_id] = known
            self._bytes += known.bytes
        return whole

    def _forget(self, promise_id: str) -> _Known | None:
        known = self._known.pop(promise_id, None)
        self._bytes -= known.bytes if known else 0
        return known


def _is_final(record: Checkpoint) -> bool:
    return record.state is State.RESOLVED or record.kind is Kind.DETACHED
