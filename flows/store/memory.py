"""What a thread that claims remembers, so that its next claim reads less: final records, and how far it has looked."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    created_at: float
    records: tuple[Checkpoint, ...] = ()
    bytes: int = 0


class Memory:
    """How far each group's ready promises were claimed, and the first calls of some promises, up to what may change.

    Ready promises are claimed oldest first, so those that are left became ready later. One that was seen late, because
    its start waited in a long transaction, is found by a look from the beginning, once a look from here finds nothing;
    or by the sweep, if there is always something.

    What has resolved stays so, and of a detached call its caller knows the id alone. An id that was purged and started
    again is told by when its promise was created. What was not asked for longest is forgotten first, and only when a
    claim is about to be made: its answer leaves out whatever it was told to be known.
    """

    def __init__(self, *, worth: int = WORTH, most_bytes: int = MOST_BYTES) -> None:
        self._worth = worth
        self._most_bytes = most_bytes
        self._known: dict[str, _Known] = {}  # the last used at the end
        self._bytes = 0
        self._claimed_until: dict[str, float] = {}

    def since(self, group: str) -> float:
        """Return the time, in epoch seconds, from which on a claim should look for what is ready; 0 if not known."""
        return max(0.0, self._claimed_until.get(group, 0.0) - LATE_S)

    def claimed(self, group: str, ready_at: float) -> None:
        """Take note that the oldest of ``group`` were claimed, the last of them ready since ``ready_at``.

        That may be earlier than before: the clock may have been put back.
        """
        self._claimed_until[group] = ready_at

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
