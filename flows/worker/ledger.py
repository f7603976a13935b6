"""Group commit: what attempts have done and the table does not have yet, for as long as the COMMIT_WITHIN setting.

Each thread that runs attempts has a ledger. It commits by itself when nothing more is to be run; while attempts run,
the process's watchdog commits what has come of age, with all attempts that have ended in other threads, on a connection
of its own, so that one goes on while PostgreSQL writes what the others have done. If the watchdog is late the thread
does it. Sends happen after the commit: a broker that hangs holds up nobody's commit.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime

from django.db import DatabaseError, InterfaceError, transaction

from flows.conf import settings
from flows.domain.errors import AttemptFenced, MisuseError
from flows.domain.promise import Kind
from flows.engine.decision import Call, Decision, Interrupted
from flows.store import outcomes, sql
from flows.store.claims import Claim, ReadyRef
from flows.store.outcomes import Committed, Outcome
from flows.worker import process, publish

log = logging.getLogger(__name__)

# A claim that has not begun after this long is given back: somebody else may have a free slot.
PATIENCE_S = 0.050
# When so many calls of an attempt that goes on are not written yet, they are: who is called need not wait for the rest.
PORTION = 200
# So many times COMMIT_WITHIN old, work is not left to the watchdog any more: it is late.
LATE = 4


class Ledger:
    """The uncommitted work of the thread that makes this, and its claims that wait.

    Also the journal of the attempt that it runs.
    """

    def __init__(self) -> None:
        self._connection = sql.connection()
        self._lock = threading.RLock()
        # Held by whoever writes, and taken before the other one: who only adds to the work does not wait for that.
        self._writing = threading.RLock()
        self._queue: deque[Claim] = deque()
        self._queued_at = 0.0
        self._finished: list[Outcome] = []
        self._claim: Claim | None = None
        self._calls: list[Call] = []
        self._cancels: list[str] = []
        self._awaited_before: set[str] = set()
        self._is_fenced = False
        self._since = 0.0
        self._is_unwatched = False

    def enqueue(self, claims: Sequence[Claim]) -> None:
        """Take claims that will begin one after the other.

        If one is of a promise whose last claim was lost, what was done then is refused before.
        """
        promise_ids = {outcome.claim.invocation.id for outcome in self._finished}
        if any(claim.invocation.id in promise_ids for claim in claims):
            self.flush()
        with self._lock:
            self._queue.extend(claims)
            self._queued_at = time.monotonic()
            self._is_unwatched = True

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
            self._claim, self._calls, self._cancels, self._is_fenced = claim, [], [], False
            self._awaited_before = set()
        self.before_user_code()

    def before_user_code(self) -> None:
        """Have the watchdog commit what waits, and give back what has not begun, when it comes of age.

        Only now: most attempts are committed before any more user code runs, and to wake a thread takes its time.
        """
        self._have_watched()

    def record(self, call: Call) -> None:
        """Take a call of the running attempt.

        Raises ``AttemptFenced`` if the attempt was refused meanwhile, and ``MisuseError`` inside a transaction of user
        code, which could undo the record.
        """
        self._refuse_in_transaction()
        with self._lock:
            self._start_clock()
            self._calls.append(call)
        if self._fills_portion(call) or (self._is_of_age() and not self._leave_to_watchdog()):
            self.flush()
        if self._is_fenced:
            raise AttemptFenced

    def commit_with(self, step: Callable[[], Call]) -> Call:
        """Run ``step`` in one transaction with the record of the call that it returns, and with the fence.

        Raises as ``record``, and ``Interrupted`` if the connection is gone; whatever ``step`` raises.
        """
        self._refuse_in_transaction()
        # What was done before belongs to no transaction of user code.
        self.flush()
        if self._is_fenced:
            raise AttemptFenced
        assert self._claim is not None
        used = sql.ensured()
        committed: list[bool] = []
        try:
            with transaction.atomic(using=settings.DATABASE):
                # Before whatever the step wants to be called after the commit: that may raise, and undoes nothing.
                transaction.on_commit(lambda: committed.append(True), using=settings.DATABASE)
                call = step()
                self._is_fenced = not outcomes.commit_calls(self._claim, [call])
                transaction.set_rollback(self._is_fenced, using=settings.DATABASE)
        except Exception as error:
            if committed:
                log.exception("a callback after the commit of %s has failed", call.id)
                return call
            if isinstance(error, DatabaseError | InterfaceError) and used.closed:
                raise Interrupted(f"the database went away: {error}") from error
            raise
        if self._is_fenced:
            outcomes.record_fenced([self._claim])
            raise AttemptFenced
        return call

    def cancel(self, promise_ids: Iterable[str]) -> None:
        """Take calls of the running attempt that are to be canceled, in one transaction with what is recorded next."""
        with self._lock:
            self._start_clock()
            self._cancels += promise_ids

    def now(self) -> datetime:
        """Return the time of the database's clock."""
        assert self._claim is not None
        return self._claim.now()

    def finish(
        self, decision: Decision, *, celery_continues: bool, waits_for: Collection[str] = ()
    ) -> tuple[Committed | None, list[ReadyRef]]:
        """End the attempt and commit, with all that is waiting.

        Return how it was written, None if it was refused, and what became ready and is left to the caller (see
        ``publish``). ``celery_continues`` leaves it to Celery to wake the parent.
        """
        with self._writing:
            promise_id = self._end(decision)
            batch, written = self._persist()
        continued = promise_id if celery_continues else None
        left = publish.send(batch, written, celery_continues=continued, waits_for=waits_for)
        return written.get(promise_id), left

    def defer(
        self,
        decision: Decision,
        *,
        more_follows: bool = False,
        stays_for: Collection[str] = (),
        waits_for: Collection[str] = (),
    ) -> list[ReadyRef]:
        """End the attempt and do as ``flush``; if a claim waits, or ``more_follows``, leave that to the watchdog."""
        self._end(decision)
        if (more_follows or self._queue) and not self._is_late():
            self._have_watched()
            return []
        return self.flush(stays_for=stays_for, waits_for=waits_for)

    def abandon(self) -> None:
        """End an attempt that was fenced or broken off: what it did since its last commit is void."""
        with self._lock:
            self._claim, self._calls, self._cancels = None, [], []

    def flush(self, *, stays_for: Collection[str] = (), waits_for: Collection[str] = ()) -> list[ReadyRef]:
        """Commit everything, and send what became ready; return what of it is left to the caller (see ``publish``)."""
        batch, written = self._persist()
        return publish.send(batch, written, stays_for=stays_for, waits_for=waits_for)

    def release(self) -> None:
        """Give back the claims that have not begun."""
        with self._lock:
            self._start_clock()
            self._finished += [Outcome(claim=claim, released=True) for claim in self._queue]
            self._queue.clear()

    def due_at(self) -> float | None:
        """Return the monotonic time by which something must be done, None if there is nothing."""
        times = []
        if self._finished or self._calls or self._cancels:
            times.append(self._since + settings.COMMIT_WITHIN.total_seconds())
        if self._queue:
            times.append(self._queued_at + PATIENCE_S)
        return min(times, default=None)

    def flush_due(self, others: Iterable["Ledger"]) -> None:
        """Commit, with what ``others`` lend, and give back claims that have waited for too long; for the watchdog."""
        with self._lock:
            if self._queue and time.monotonic() >= self._queued_at + PATIENCE_S:
                self.release()
        try:
            batch, written = self._persist(others)
        except Exception:  # somebody holds a lock that one of the others needs, or what one has cannot be written
            batch, written = self._persist()
        publish.send(batch, written)

    @contextmanager
    def lend(self, seen: Set[str]) -> Iterator[list[Outcome]]:
        """Lend the attempts that have ended to somebody who writes them within the block; take them back if that fails.

        None if somebody writes already, or if one cannot be in a statement with others, ``seen`` being their promises.
        """
        lent: list[Outcome] = []
        with self._lock:
            fits = not any(each.stands_alone or each.claim.invocation.id in seen for each in self._finished)
            if self._finished and fits and self._writing.acquire(blocking=False):
                lent, self._finished = self._finished, lent
        if not lent:
            yield []
            return
        try:
            yield lent
        except BaseException:
            with self._lock:
                self._finished[:0] = lent
            raise
        finally:
            self._writing.release()

    def _end(self, decision: Decision) -> str:
        with self._lock:
            self._start_clock()
            outcome = self._running(decision)
            self._finished.append(outcome)
            self._claim, self._calls, self._cancels = None, [], []
            return outcome.claim.invocation.id

    def _persist(self, others: Iterable["Ledger"] = ()) -> tuple[list[Outcome], dict[str, Committed]]:
        """Write everything, and what ``others`` lend. If that fails the work is kept: the next try writes it."""
        with self._writing, ExitStack() as loans:
            with self._lock:
                finished, running = self._finished, self._running() if self._calls or self._cancels else None
                self._finished, self._calls, self._cancels = [], [], []
                if running is not None:
                    self._awaited_before |= {call.id for call in running.calls if running.continuation_of(call)}
            batch = [*finished, *([running] if running else [])]
            try:
                borrowed = _borrowed(loans, batch, [each for each in others if each is not self])
                batch += borrowed
                written = publish.persist(batch, gives_up=bool(borrowed)) if batch else {}
            except BaseException:
                self._put_back(finished, running)
                raise
            with self._lock:
                if running is not None and self._claim is running.claim:
                    self._is_fenced = running.claim.invocation.id not in written
            return batch, written

    def _put_back(self, finished: Sequence[Outcome], running: Outcome | None) -> None:
        """Put what was not written before what came meanwhile: the attempt that ran may have ended."""
        with self._lock:
            if running is not None and self._claim is running.claim:
                self._calls[:0], self._cancels[:0] = running.calls, running.cancels
            elif running is not None:
                ended = self._finished
                self._finished = [_after(running, each) if each.claim is running.claim else each for each in ended]
            self._finished[:0] = finished

    def _running(self, decision: Decision | None = None) -> Outcome:
        assert self._claim is not None
        return Outcome(
            claim=self._claim,
            calls=tuple(self._calls),
            cancels=tuple(self._cancels),
            decision=decision,
            awaited_before=frozenset(self._awaited_before),
        )

    def _refuse_in_transaction(self) -> None:
        if self._connection.in_atomic_block:
            raise MisuseError(
                "an operation of the context was used inside transaction.atomic(), which might undo its record; "
                "end the block first, or put the whole block into a function for ctx.atomic(…)"
            )

    def _start_clock(self) -> None:
        if not (self._finished or self._calls or self._cancels):
            self._since = time.monotonic()
            self._is_unwatched = True

    def _have_watched(self) -> None:
        # Once for all that comes of age together: the watchdog knows then when that is.
        if self._is_unwatched and self.due_at() is not None:
            self._is_unwatched = False
            process.watch(self)

    def _leave_to_watchdog(self) -> bool:
        """Have the watchdog commit and return True; not while it still writes what came before, nor if it is late."""
        if self._is_late() or not self._writing.acquire(blocking=False):
            return False
        self._writing.release()
        self._have_watched()
        return True

    def _fills_portion(self, call: Call) -> bool:
        # By rfi no call is awaited yet: marked so later, it would be locked just when a worker comes for it.
        return len(self._calls) >= PORTION and call.kind in (Kind.RPC, Kind.DETACHED)

    def _is_of_age(self) -> bool:
        return time.monotonic() - self._since >= settings.COMMIT_WITHIN.total_seconds()

    def _is_late(self) -> bool:
        return time.monotonic() - self._since >= LATE * settings.COMMIT_WITHIN.total_seconds()


def _borrowed(loans: ExitStack, batch: Sequence[Outcome], others: Iterable[Ledger]) -> list[Outcome]:
    """Return what ``others`` lend for one statement with the batch, until ``loans`` end."""
    if any(outcome.stands_alone for outcome in batch):
        return []
    borrowed: list[Outcome] = []
    for other in others:
        seen = {outcome.claim.invocation.id for outcome in (*batch, *borrowed)}
        borrowed += loans.enter_context(other.lend(seen))
    return borrowed


def _after(running: Outcome, ended: Outcome) -> Outcome:
    """Return the end of an attempt together with what it did before."""
    return replace(ended, calls=(*running.calls, *ended.calls), cancels=(*running.cancels, *ended.cancels))


_local = threading.local()


def ledger() -> Ledger:
    """Return this thread's ledger; a forked process gets a new one."""
    if getattr(_local, "pid", None) != os.getpid():
        _local.pid, _local.ledger = os.getpid(), Ledger()
    found: Ledger = _local.ledger
    return found
