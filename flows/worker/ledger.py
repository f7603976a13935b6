"""Group commit: what attempts have done and the table does not have yet, never older than the COMMIT_WITHIN setting.

Each thread that runs attempts has a ledger. It commits by itself between attempts; while user code runs, the process's
watchdog commits what has come of age. Sends happen after the commit and outside the lock: a broker that hangs holds up
nobody's commit.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Iterable

from flows.conf import settings
from flows.domain.errors import AttemptFenced, MisuseError
from flows.engine.decision import Call, Decision
from flows.store import sql
from flows.store.claims import Claim
from flows.store.outcomes import Committed, Outcome
from flows.worker import process, publish

# A claim that has not begun after this long is given back: somebody else may have a free slot.
PATIENCE_S = 0.050


class Ledger:
    """The uncommitted work of one thread, and its claims that wait. Also the journal of the attempt that it runs."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queue: deque[Claim] = deque()
        self._queued_at = 0.0
        self._finished: list[Outcome] = []
        self._claim: Claim | None = None
        self._calls: list[Call] = []
        self._is_fenced = False
        self._since = 0.0

    def enqueue(self, claims: Iterable[Claim]) -> None:
        """Take claims that will begin one after the other."""
        with self._lock:
            self._queue.extend(claims)
            self._queued_at = time.monotonic()
        process.watch(self)

    def begin_next(self) -> Claim | None:
        """Begin the next claim that waits, and return it."""
        with self._lock:
            claim = self._queue.popleft() if self._queue else None
            if claim is not None:
                self.begin(claim)
            return claim

    def begin(self, claim: Claim) -> None:
        """Begin an attempt."""
        with self._lock:
            self._claim, self._calls, self._is_fenced = claim, [], False

    def record(self, call: Call) -> None:
        """Take a call of the running attempt.

        Raises ``AttemptFenced`` if the attempt was refused meanwhile, and ``MisuseError`` inside a transaction of user
        code, which could undo the record.
        """
        if sql.connection().in_atomic_block:
            raise MisuseError(
                "an operation of the context was used inside transaction.atomic(), which might undo its record; "
                "end the block first, or put the whole block into a function for ctx.run(…)"
            )
        with self._lock:
            self._start_clock()
            self._calls.append(call)
        process.watch(self)
        self._flush_if_of_age()
        if self._is_fenced:
            raise AttemptFenced

    def finish(self, decision: Decision, *, celery_continues: bool) -> Committed | None:
        """End the attempt and commit, with all that is waiting; return how it was written, None if it was refused.

        ``celery_continues`` leaves it to Celery to wake the parent.
        """
        with self._lock:
            promise_id = self._end(decision)
            batch, written = self._persist()
        publish.send(batch, written, celery_continues=promise_id if celery_continues else None)
        return written.get(promise_id)

    def defer(self, decision: Decision) -> None:
        """End the attempt; its commit may wait for others."""
        with self._lock:
            self._end(decision)
        process.watch(self)
        self._flush_if_of_age()

    def abandon(self) -> None:
        """End an attempt that was fenced or broken off: what it did since its last commit is void."""
        with self._lock:
            self._claim, self._calls = None, []

    def flush(self) -> None:
        """Commit everything."""
        with self._lock:
            batch, written = self._persist()
        publish.send(batch, written)

    def release(self) -> None:
        """Give back the claims that have not begun."""
        with self._lock:
            self._start_clock()
            self._finished += [Outcome(claim=claim, released=True) for claim in self._queue]
            self._queue.clear()

    def due_at(self) -> float | None:
        """Return the monotonic time by which something must be done, None if there is nothing."""
        times = []
        if self._finished or self._calls:
            times.append(self._since + settings.COMMIT_WITHIN.total_seconds())
        if self._queue:
            times.append(self._queued_at + PATIENCE_S)
        return min(times, default=None)

    def flush_due(self) -> None:
        """Commit, and give back claims that have waited for too long; for the watchdog."""
        with self._lock:
            if self._queue and time.monotonic() >= self._queued_at + PATIENCE_S:
                self.release()
        self.flush()

    def _end(self, decision: Decision) -> str:
        assert self._claim is not None
        self._start_clock()
        outcome = Outcome(claim=self._claim, calls=tuple(self._calls), decision=decision)
        self._finished.append(outcome)
        self._claim, self._calls = None, []
        return outcome.claim.invocation.id

    def _persist(self) -> tuple[list[Outcome], dict[str, Committed]]:
        """Write everything. If that fails the work is kept: it is written with the next try, or refused then."""
        running = self._claim if self._calls else None
        batch = list(self._finished)
        if running is not None:
            batch.append(Outcome(claim=running, calls=tuple(self._calls)))
        if not batch:
            return [], {}
        written = publish.persist(batch)
        self._finished.clear()
        self._calls = []
        if running is not None:
            self._is_fenced = running.invocation.id not in written
        return batch, written

    def _start_clock(self) -> None:
        if not (self._finished or self._calls):
            self._since = time.monotonic()

    def _flush_if_of_age(self) -> None:
        if time.monotonic() - self._since >= settings.COMMIT_WITHIN.total_seconds():
            self.flush()


_local = threading.local()


def ledger() -> Ledger:
    """Return this thread's ledger; a forked process gets a new one."""
    if getattr(_local, "pid", None) != os.getpid():
        _local.pid, _local.ledger = os.getpid(), Ledger()
    found: Ledger = _local.ledger
    return found
