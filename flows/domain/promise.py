"""The promise record and the words for its states."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from flows.domain.errors import PromiseCanceled, PromiseFailed, PromiseRejected, PromiseTimedOut

MAX_TRACEBACK = 8_000
MAX_MESSAGE = 4_000
MAX_CAUSES = 8


class State(StrEnum):
    """What the world sees. Every state but PENDING is final."""

    PENDING = "pending"
    RESOLVED = "resolved"
    REJECTED = "rejected"
    CANCELED = "canceled"
    TIMEDOUT = "timedout"

    @property
    def glyph(self) -> str:
        """One character beside the word, on screens."""
        return {"pending": "…", "resolved": "✓", "rejected": "✗", "canceled": "⊘", "timedout": "◷"}[self]


class Kind(StrEnum):
    """How a promise came to be."""

    ROOT = "root"
    RPC = "rpc"
    RFI = "rfi"
    DETACHED = "detached"
    RUN = "run"
    TIMER = "timer"
    EXTERNAL = "external"


# What no worker runs as a call of its own.
LOCAL_KINDS = frozenset({Kind.RUN, Kind.TIMER, Kind.EXTERNAL})


class Phase(StrEnum):
    """Where a pending call stands with the workers. NONE: nothing is to be run (settled, a timer, a local step)."""

    NONE = ""
    READY = "ready"
    CLAIMED = "claimed"
    SUSPENDED = "suspended"
    ASIDE = "aside"


class Continuation(StrEnum):
    """How the parent hangs on this child: not at all, by a Celery link, or by a chord."""

    NONE = ""
    LINK = "link"
    CHORD = "chord"


class AttemptOutcome(StrEnum):
    """How one attempt ended."""

    SUSPENDED = "suspended"
    RESOLVED = "resolved"
    REJECTED = "rejected"
    FAILED = "failed"
    LOST = "lost"
    FENCED = "fenced"
    ASIDE = "aside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One promise as its callers see it. Times are aware UTC datetimes of the database's clock."""

    id: str
    root_id: str
    parent_id: str | None
    kind: Kind
    group: str
    function: str
    version: int | None
    args: list[Any]
    tags: dict[str, str]
    state: State
    phase: Phase
    value: Any
    error: dict[str, Any] | None
    note: str
    created_at: datetime
    deadline_at: datetime
    settled_at: datetime | None

    @property
    def is_settled(self) -> bool:
        """True once the outcome is final."""
        return self.state is not State.PENDING

    def outcome(self) -> Any:
        """Return the value, or raise the ``PromiseFailed`` that the state stands for."""
        failure = failure_of(self.id, self.state, self.error)
        if failure is not None:
            raise failure
        return self.value


def failure_of(promise_id: str, state: State, error: dict[str, Any] | None) -> PromiseFailed | None:
    """Return the error that awaiting code sees, or None for a promise that resolved."""
    if state is State.PENDING:
        raise ValueError(f"promise {promise_id} is pending: it has no outcome")
    if state is State.RESOLVED:
        return None
    if state is State.REJECTED:
        return PromiseRejected(promise_id, error or {"type": "Unknown", "message": "", "traceback": "", "cause": None})
    return PromiseCanceled(promise_id) if state is State.CANCELED else PromiseTimedOut(promise_id)


def describe_error(error: BaseException, depth: int = 0) -> dict[str, Any]:
    """Return what is stored of an exception: type name, message, traceback text, and its cause in the same shape.

    Of an awaited promise's failure that nobody caught also the ids: ``promises``, all of a gather that failed.
    """
    described_cause: dict[str, Any] | None = None
    if isinstance(error, PromiseRejected):
        described_cause = error.error
    elif error.__cause__ is not None and depth < MAX_CAUSES:
        described_cause = describe_error(error.__cause__, depth + 1)
    described: dict[str, Any] = {
        "type": type(error).__name__,
        "message": _storable(lambda: str(error))[:MAX_MESSAGE],
        "traceback": _storable(lambda: _traceback(error))[-MAX_TRACEBACK:],
        "cause": described_cause,
    }
    if isinstance(error, PromiseFailed):
        described["promises"] = [error.promise_id, *error.also_failed]
    return described


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__, chain=False))


def _storable(text_of: Callable[[], str]) -> str:
    try:
        text = text_of()
    except Exception as error:  # an exception whose own text cannot be had
        text = f"(no text: {type(error).__name__})"
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()
