"""One attempt's view of the calls of its promise: those on record, and those that it makes."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Protocol

from flows.domain.durations import to_duration
from flows.domain.errors import InvalidInputError, LimitError, MisuseError, NonDeterminismError, PromiseFailed
from flows.domain.ids import MAX_CALLS
from flows.domain.promise import Kind, State
from flows.domain.retry import RetryPolicy
from flows.engine.decision import Call, Checkpoint, Invocation, Journal

log = logging.getLogger(__name__)


class Labeled(Protocol):
    """What users know by what they have written for it."""

    @property
    def label(self) -> str:
        """Return the expression that made it, such as ``ctx.rpc('charge')``."""


class History:
    """Compares each call with the record in its place and hands new ones to the journal."""

    def __init__(self, invocation: Invocation, journal: Journal, policy: RetryPolicy) -> None:
        self.invocation = invocation
        # What was made and not awaited yet; a dict, for its order.
        self.unused: dict[Labeled, None] = {}
        self._journal = journal
        self._policy = policy
        # By position.
        self.checkpoints = {checkpoint.position: checkpoint for checkpoint in invocation.checkpoints}
        self._last = max(self.checkpoints, default=-1)
        # What earlier attempts were suspended on, and this one has not come to yet.
        self._unreached = {checkpoint.id for checkpoint in invocation.checkpoints if checkpoint.is_awaited}
        self._position = 0
        self._created: list[Call] = []
        self._canceled: set[str] = set()
        self._is_unwritten = False
        self._has_ended = False

    @property
    def is_replaying(self) -> bool:
        """True while the function does what an earlier attempt has done already."""
        return self._position <= self._last or bool(self._unreached)

    @property
    def position(self) -> int:
        """How many calls the function has made."""
        return self._position

    def next_position(self) -> int:
        """Return the position of the call that is made now."""
        if self._has_ended:
            raise MisuseError(
                f"the context of {self.invocation.id} was used after its attempt had ended; use it only inside the "
                "durable function that it was given to, not in threads, callbacks or clean-up"
            )
        position = self._position
        if position >= MAX_CALLS:
            raise LimitError(
                f"{self.invocation.id} makes more than {MAX_CALLS} calls; divide them among calls of its own, or go on "
                "in another with ctx.detached(…)"
            )
        self._position += 1
        return position

    def recall(self, call: Call) -> Checkpoint | None:
        """Return the record of ``call``; raise ``NonDeterminismError`` if another call stands in its place."""
        checkpoint = self.checkpoints.get(call.position)
        if checkpoint is None:
            return None
        if not _is_same(checkpoint, call):
            raise NonDeterminismError(
                f"call {call.position} of {self.invocation.id} is recorded as {_describe(checkpoint)}, "
                f"but the function now makes {_describe(call)}"
            )
        return checkpoint

    def is_patched(self, mark: Callable[[int], Call]) -> bool:
        """Return whether the call ``mark(position)`` is recorded here, or nothing is from here on: then it is now."""
        recorded = self.checkpoints.get(self._position)
        call = mark(self._position)
        is_marked = recorded is not None and (recorded.kind, recorded.function, recorded.digest) == (
            call.kind,
            call.function,
            call.digest,
        )
        if not is_marked and self._position <= self._last:
            return False
        self.next_position()
        if not is_marked:
            self.record(call)
            self.before_user_code()
        return True

    def record(self, call: Call) -> None:
        """Hand a call to the journal."""
        self._journal.record(call)
        self._created.append(call)
        self._is_unwritten = True

    def commit_with(self, step: Callable[[], Call]) -> Call:
        """Have the journal run ``step`` in one transaction with the record of the call that it returns."""
        call = self._journal.commit_with(step)
        self._created.append(call)
        return call

    def cancel(self, promise_ids: Iterable[str]) -> None:
        """Have the journal cancel these calls."""
        pending = [id for id in promise_ids if id not in self._canceled]
        if pending:
            self._journal.cancel(pending)
            self._canceled.update(pending)
            self._is_unwritten = True

    def before_user_code(self) -> None:
        """Tell the journal that user code goes on, if anything was handed to it since it did before."""
        if self._is_unwritten:
            self._is_unwritten = False
            self._journal.before_user_code()

    def reached(self, promise_ids: Iterable[str]) -> None:
        """Take note that the function has what it was waiting for."""
        self._unreached.difference_update(promise_ids)

    def now(self) -> datetime:
        """Return the time of the database's clock."""
        return self._journal.now()

    def delay_after(
        self, error: BaseException, failures: int, promise_id: str, policy: RetryPolicy | None = None
    ) -> timedelta | None:
        """Return how long to wait before trying again, or None if ``error`` is final."""
        # A failed promise, or wrong use, would replay to the same failure.
        if isinstance(error, PromiseFailed | MisuseError | InvalidInputError | LimitError):
            return None
        try:
            delay = (policy or self._policy).delay(failures, error, promise_id)
            return None if delay is None else to_duration(delay, "retry")
        except Exception:  # a policy of somebody's own that is broken: nobody says when to try again
            log.exception("the retry policy of %s is broken: it gives up", promise_id)
            return None

    def unfinished(self) -> tuple[str, ...]:
        """Return the ids of the pending children that the function must outlive; detached ones are exempt."""
        known = (c.id for c in self.checkpoints.values() if c.state is State.PENDING and _is_owned(c.kind))
        new = (call.id for call in self._created if call.state is State.PENDING and _is_owned(call.kind))
        return tuple(id for id in dict.fromkeys([*known, *new]) if id not in self._canceled)

    def check_complete(self) -> None:
        """Raise unless every operation was awaited and every recorded call was made again."""
        if self.unused:
            label = next(iter(self.unused)).label
            raise MisuseError(
                f"{label} was made but never awaited; write `yield from {label}`, or `await {label}` in an async def"
            )
        missing = [checkpoint for position, checkpoint in self.checkpoints.items() if position >= self._position]
        if missing:
            raise NonDeterminismError(
                f"call {missing[0].position} of {self.invocation.id} is recorded as {_describe(missing[0])}, "
                "but the function now ends before it"
            )

    def end(self) -> None:
        """Refuse every further call: the attempt is over."""
        self._has_ended = True

    def is_continued_by(self, invocation: Invocation) -> bool:
        """Return True if this is the next attempt, each call is on record as it was made, and no outcome has changed.

        The attempt may have been refused, so that its calls were never written. A call whose failure it has seen may be
        pending again, if somebody retried it.
        """
        before = self.invocation
        records = {checkpoint.position: checkpoint for checkpoint in invocation.checkpoints}
        return (
            before._replace(attempt=before.attempt + 1, checkpoints=()) == invocation._replace(checkpoints=())
            and len(records) == self._position
            and all(call.position in records and _is_of(records[call.position], call) for call in self._created)
            and all(
                checkpoint.state is State.PENDING or _is_equal(checkpoint, records.get(position))
                for position, checkpoint in self.checkpoints.items()
            )
        )

    def go_on(self, invocation: Invocation) -> None:
        """Begin the next attempt, which is continued from here."""
        self.invocation = invocation
        self.checkpoints = {checkpoint.position: checkpoint for checkpoint in invocation.checkpoints}
        self._last = max(self.checkpoints, default=-1)
        self._unreached = set()
        self._created = []
        self._has_ended = False


def _is_same(checkpoint: Checkpoint, call: Call) -> bool:
    recorded = (checkpoint.id, checkpoint.kind, checkpoint.group, checkpoint.function, checkpoint.digest)
    return recorded == (call.id, call.kind, call.group, call.function, call.digest)


def _is_of(checkpoint: Checkpoint, call: Call) -> bool:
    is_as_made = (checkpoint.state, checkpoint.value) == (call.state, call.value)
    return _is_same(checkpoint, call) and (call.state is State.PENDING or is_as_made)


def _is_equal(one: Checkpoint, other: Checkpoint | None) -> bool:
    # Most are the same objects: those that the thread has read before. Others are compared field by field.
    return one is other or one == other


def _is_owned(kind: Kind) -> bool:
    return kind in (Kind.RPC, Kind.RFI, Kind.TIMER, Kind.EXTERNAL)


def _describe(call: Call | Checkpoint) -> str:
    return f"{call.kind} {call.group}.{call.function} (arguments {call.digest[:8] or 'not stored'})"
