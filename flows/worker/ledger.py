"""Group commit: what attempts have done and the table does not have yet, never older than the COMMIT_WITHIN setting.

Each thread that runs attempts has a ledger. It commits by itself between attempts; while user code runs, one watchdog
thread per process commits what has come of age.
"""

import os
import threading
import time

from flows.conf import settings
from flows.domain.errors import AttemptFenced
from flows.engine.decision import Call, Decision
from flows.store.claims import Claim
from flows.store.outcomes import Committed, Outcome
from flows.worker import publish
from flows.worker.watchdog import watch


class Ledger:
    """The uncommitted work of one thread. Also the journal of the attempt that it runs."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._finished: list[Outcome] = []
        self._claim: Claim | None = None
        self._calls: list[Call] = []
        self._is_fenced = False
        self._since = 0.0

    def begin(self, claim: Claim) -> None:
        """Begin an attempt."""
        with self._lock:
            self._claim, self._calls, self._is_fenced = claim, [], False

    def record(self, call: Call) -> None:
        """Take a call of the running attempt; raise ``AttemptFenced`` if the attempt was refused meanwhile."""
        with self._lock:
            self._start_clock()
            self._calls.append(call)
            watch(self)
            self._flush_if_due()
            if self._is_fenced:
                raise AttemptFenced

    def finish(self, decision: Decision, *, celery_continues: bool) -> Committed | None:
        """End the attempt and commit, with all that is waiting; return how it was written, None if it was refused.

        ``celery_continues`` leaves it to Celery to wake the parent.
        """
        with self._lock:
            promise_id = self._end(decision)
            return self.flush(celery_continues=promise_id if celery_continues else None).get(promise_id)

    def defer(self, decision: Decision) -> None:
        """End the attempt; its commit may wait for others."""
        with self._lock:
            self._end(decision)
            watch(self)
            self._flush_if_due()

    def release(self, claim: Claim) -> None:
        """Give back a claim whose attempt never began."""
        with self._lock:
            self._finished.append(Outcome(claim=claim, released=True))

    def abandon(self) -> None:
        """End an attempt that was fenced or broken off: what it did since its last commit is void."""
        with self._lock:
            self._claim, self._calls = None, []

    def due_at(self) -> float | None:
        """Return the monotonic time by which something must be committed, None if there is nothing."""
        return self._since + settings.COMMIT_WITHIN.total_seconds() if self._finished or self._calls else None

    def flush(self, *, celery_continues: str | None = None) -> dict[str, Committed]:
        """Commit everything; return what was written, by promise id."""
        with self._lock:
            batch, self._finished = self._finished, []
            running = self._claim if self._calls else None
            if running is not None:
                batch.append(Outcome(claim=running, calls=tuple(self._calls)))
                self._calls = []
            if not batch:
                return {}
            written = publish.commit(batch, celery_continues=celery_continues)
            if running is not None:
                self._is_fenced = running.invocation.id not in written
            return written

    def _end(self, decision: Decision) -> str:
        assert self._claim is not None
        self._start_clock()
        outcome = Outcome(claim=self._claim, calls=tuple(self._calls), decision=decision)
        self._finished.append(outcome)
        self._claim, self._calls = None, []
        return outcome.claim.invocation.id

    def _start_clock(self) -> None:
        if not (self._finished or self._calls):
            self._since = time.monotonic()

    def _flush_if_due(self) -> None:
        due_at = self.due_at()
        if due_at is not None and time.monotonic() >= due_at:
            self.flush()


_local = threading.local()


def ledger() -> Ledger:
    """Return this thread's ledger; a forked process gets a new one."""
    if getattr(_local, "pid", None) != os.getpid():
        _local.pid, _local.ledger = os.getpid(), Ledger()
    found: Ledger = _local.ledger
    return found
