"""Where the time of a promise went: running, waiting, backing off; and what happened to it on the way."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from flows.domain.durations import in_words
from flows.domain.promise import AttemptOutcome, Kind, Phase, State
from flows.domain.tree import TreeAttempt, TreePromise


class Spent(StrEnum):
    """What a promise did for a time. QUEUED: ready, and no worker has claimed it yet."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    BACKING_OFF = "backing off"
    ASIDE = "set aside"


class Event(StrEnum):
    """What can be marked at one moment."""

    FAILED = "failed"
    LOST = "lost"
    FENCED = "fenced"
    ASIDE = "set aside"
    STEP = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time spent in one way."""

    spent: Spent
    begun_at: datetime
    ended_at: datetime

    @property
    def duration(self) -> timedelta:
        """How long it was."""
        return self.ended_at - self.begun_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened at one moment. ``text`` says it in a few words."""

    event: Event
    at: datetime
    text: str


# What a promise does after an attempt that ended so, until the next one.
_AFTER = {
    None: Spent.QUEUED,
    AttemptOutcome.SUSPENDED: Spent.WAITING,
    AttemptOutcome.FAILED: Spent.BACKING_OFF,
    AttemptOutcome.LOST: Spent.QUEUED,
    AttemptOutcome.FENCED: Spent.QUEUED,
    AttemptOutcome.ASIDE: Spent.ASIDE,
}
_MARKED = {
    AttemptOutcome.FAILED: Event.FAILED,
    AttemptOutcome.LOST: Event.LOST,
    AttemptOutcome.FENCED: Event.FENCED,
    AttemptOutcome.ASIDE: Event.ASIDE,
}


def spans(promise: TreePromise, now: datetime) -> list[Span]:
    """Return how the promise spent its time until it settled, or until ``now``, in order, without what is empty."""
    if promise.kind is Kind.RUN:
        return []
    end = promise.settled_at or now
    if promise.kind in (Kind.TIMER, Kind.EXTERNAL):
        found = [Span(spent=Spent.WAITING, begun_at=promise.created_at, ended_at=end)]
    else:
        found = list(_spans(promise, end))
    return [span for span in found if span.begun_at < span.ended_at]


def marks(promise: TreePromise) -> list[Mark]:
    """Return what happened to the promise at one moment: attempts that did not end as they should, local steps."""
    if promise.kind is Kind.RUN:
        at = promise.settled_at or promise.created_at
        return [Mark(event=Event.STEP, at=at, text=f"step {promise.state}")]
    return [
        Mark(event=_MARKED[each.outcome], at=each.ended_at, text=f"attempt {each.fence} {each.outcome}")
        for each in promise.attempts
        if each.outcome in _MARKED
    ]


def in_one_line(promise: TreePromise, now: datetime) -> str:
    """Return where the time of the promise went, for those who cannot see it drawn."""
    spent: defaultdict[Spent, timedelta] = defaultdict(timedelta)
    for span in spans(promise, now):
        spent[span.spent] += span.duration
    times = (f"{each} {in_words(spent[each])}" for each in Spent if spent[each])
    return ", ".join([*times, *(mark.text for mark in marks(promise))])


def standing(promise: TreePromise, now: datetime, awaits: int = 0) -> str:
    """Return in a few words what a pending promise does or waits for, "" for a settled one.

    ``awaits`` is the number of calls that it waits for, 0 if that is not known.
    """
    if promise.state is not State.PENDING:
        return ""
    match promise.kind:
        case Kind.EXTERNAL:
            return "waits for somebody to settle it"
        case Kind.TIMER:
            return f"wakes up in {in_words(promise.deadline_at - now)}"
        case Kind.RUN:
            return "a step that is tried again"
        case _:
            return _phase_in_words(promise, now, awaits)


def _phase_in_words(promise: TreePromise, now: datetime, awaits: int) -> str:
    match promise.phase:
        case Phase.CLAIMED:
            return f"runs on {promise.node or 'a node that is gone'}"
        case Phase.SUSPENDED:
            return f"waits for {_calls(awaits)}"
        case Phase.ASIDE:
            return "set aside"
    if promise.ready_at and promise.ready_at > now:
        return f"next attempt in {in_words(promise.ready_at - now)}"
    return f"waits for a worker of {promise.group}"


def _calls(number: int) -> str:
    return {0: "its calls", 1: "1 call"}.get(number, f"{number} calls")


def _spans(promise: TreePromise, end: datetime) -> Iterator[Span]:
    at, before = promise.created_at, None
    for begun_at, ended_at, attempt in _runs(promise, end):
        yield from _pause(promise, before, at, begun_at)
        yield Span(spent=Spent.RUNNING, begun_at=begun_at, ended_at=ended_at)
        at, before = ended_at, attempt.outcome if attempt else None
    if promise.phase is not Phase.CLAIMED:
        yield from _pause(promise, before, at, end)


def _runs(promise: TreePromise, end: datetime) -> Iterator[tuple[datetime, datetime, TreeAttempt | None]]:
    # A lost attempt is known to have ended when a sweep found it, and one that was fenced when it gave up: by then the
    # next one may have begun.
    begins = [attempt.started_at for attempt in promise.attempts[1:]]
    is_claimed = promise.phase is Phase.CLAIMED and promise.claimed_at is not None
    begins.append(promise.claimed_at if is_claimed and promise.claimed_at else end)
    for attempt, next_begun_at in zip(promise.attempts, begins, strict=True) if promise.attempts else ():
        yield attempt.started_at, max(attempt.started_at, min(attempt.ended_at, next_begun_at)), attempt
    if is_claimed and promise.claimed_at:
        yield promise.claimed_at, end, None


def _pause(
    promise: TreePromise, before: AttemptOutcome | None, begun_at: datetime, ended_at: datetime
) -> Iterator[Span]:
    if before in (AttemptOutcome.RESOLVED, AttemptOutcome.REJECTED):
        return  # until a retry opened it again
    spent = _AFTER[before]
    # Known of the last pause alone: from when on a worker might have claimed it.
    ready_at = promise.ready_at if promise.phase in (Phase.READY, Phase.CLAIMED) else None
    if ready_at and begun_at < ready_at < ended_at and before is not None:
        yield Span(spent=spent, begun_at=begun_at, ended_at=ready_at)
        yield Span(spent=Spent.QUEUED, begun_at=ready_at, ended_at=ended_at)
    else:
        yield Span(spent=spent, begun_at=begun_at, ended_at=ended_at)
