"""What goes into the replay of one attempt, and what comes out: data, no effects."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from flows.domain.promise import Kind, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A child as the table has it when the attempt begins: the record of one call."""

    id: str
    position: int
    kind: Kind
    group: str
    function: str
    digest: str
    state: State
    value: Any
    error: dict[str, Any] | None
    failures: int
    is_awaited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One attempt to be: the promise, its call, and the checkpoints of its earlier attempts."""

    id: str
    root_id: str
    group: str
    function: str
    args: list[Any]
    failures: int
    attempt: int
    checkpoints: tuple[Checkpoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that the attempt made and the table does not have yet, or a local step whose record changes.

    ``args`` and ``value`` are JSON texts. ``timeout`` is the time until the deadline, None for the default. A local
    step (``run``) is born settled, or stays pending with its failures counted while it will be tried again.
    """

    id: str
    position: int
    kind: Kind
    group: str
    function: str
    args: str
    digest: str
    timeout: timedelta | None = None
    state: State = State.PENDING
    value: str | None = None
    error: dict[str, Any] | None = None
    failures: int = 0
    is_known: bool = False


class Journal(Protocol):
    """Takes the calls of a running attempt, in order. May write them at any time."""

    def record(self, call: Call) -> None:
        """Take one call; raise ``AttemptFenced`` if the attempt has lost its claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The function returned; ``value`` is JSON text."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The function failed for good."""

    error: dict[str, Any]
    exception: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The function raised and will be tried again after ``delay``."""

    error: dict[str, Any]
    exception: BaseException
    delay: timedelta
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """The function waits until none of these promises is pending."""

    awaits: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """The function no longer makes the recorded calls; somebody must look at it."""

    note: str


Decision = Resolved | Rejected | Failed | Suspended | SetAside
