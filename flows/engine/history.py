"""One attempt's view of the calls of its promise: those on record, and those that it makes."""

from datetime import timedelta

from flows.domain.durations import to_duration
from flows.domain.errors import InvalidInputError, MisuseError, NonDeterminismError, PromiseFailed
from flows.domain.promise import Kind, State
from flows.domain.retry import RetryPolicy
from flows.engine.decision import Call, Checkpoint, Invocation, Journal


class History:
    """Compares each call with the record in its place and hands new ones to the journal."""

    def __init__(self, invocation: Invocation, journal: Journal, policy: RetryPolicy) -> None:
        self.invocation = invocation
        # What was made and not awaited yet.
        self.unused: dict[object, str] = {}
        self._journal = journal
        self._policy = policy
        self._checkpoints = {checkpoint.position: checkpoint for checkpoint in invocation.checkpoints}
        self._position = 0
        self._created: list[Call] = []

    def next_position(self) -> int:
        """Return the position of the call that is made now."""
        position = self._position
        self._position += 1
        return position

    def recall(self, call: Call) -> Checkpoint | None:
        """Return the record of ``call``; raise ``NonDeterminismError`` if another call stands in its place."""
        checkpoint = self._checkpoints.get(call.position)
        if checkpoint is None:
            return None
        recorded = (checkpoint.id, checkpoint.kind, checkpoint.group, checkpoint.function, checkpoint.digest)
        if recorded != (call.id, call.kind, call.group, call.function, call.digest):
            raise NonDeterminismError(
                f"call {call.position} of {self.invocation.id} is recorded as {_describe(checkpoint)}, "
                f"but the function now makes {_describe(call)}"
            )
        return checkpoint

    def record(self, call: Call) -> None:
        """Hand a call to the journal."""
        self._created.append(call)
        self._journal.record(call)

    def delay_after(self, error: BaseException, failures: int, promise_id: str) -> timedelta | None:
        """Return how long to wait before trying again, or None if ``error`` is final."""
        # A failed promise, or wrong use, would replay to the same failure.
        if isinstance(error, PromiseFailed | MisuseError | InvalidInputError):
            return None
        delay = self._policy.delay(failures, promise_id)
        return None if delay is None else to_duration(delay, "retry")

    def unfinished(self) -> tuple[str, ...]:
        """Return the ids of the pending children that the function must outlive; detached ones are exempt."""
        known = (c.id for c in self._checkpoints.values() if c.state is State.PENDING and _is_owned(c.kind))
        new = (call.id for call in self._created if call.state is State.PENDING and _is_owned(call.kind))
        return tuple(dict.fromkeys([*known, *new]))

    def check_complete(self) -> None:
        """Raise unless every operation was awaited and every recorded call was made again."""
        if self.unused:
            label = next(iter(self.unused.values()))
            raise MisuseError(
                f"{label} was made but never awaited; write `yield from {label}`, or `await {label}` in an async def"
            )
        missing = [checkpoint for position, checkpoint in self._checkpoints.items() if position >= self._position]
        if missing:
            raise NonDeterminismError(
                f"call {missing[0].position} of {self.invocation.id} is recorded as {_describe(missing[0])}, "
                "but the function now ends before it"
            )


def _is_owned(kind: Kind) -> bool:
    return kind in (Kind.RPC, Kind.RFI, Kind.TIMER)


def _describe(call: Call | Checkpoint) -> str:
    return f"{call.kind} {call.group}.{call.function} (arguments {call.digest[:8] or 'not stored'})"
