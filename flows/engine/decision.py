"""What goes into the replay of one attempt, and what comes out: data, no effects."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from flows.domain.promise import Kind, State

# What there may be thousands of are tuples: to make a frozen dataclass takes three times as long.


class Checkpoint(NamedTuple):
    """A child as the table has it when the attempt begins: the record of one call.

    ``value`` is JSON text, for each replay to make its own of it; ``settled_at`` is in epoch seconds.
    """

    id: str
    position: int
    kind: Kind
    group: str
    function: str
    digest: str
    state: State
    value: str | None
    error: dict[str, Any] | None
    failures: int
    is_awaited: bool
    settled_at: float | None


class Invocation(NamedTuple):
    """One attempt to be: the promise, its call, and the checkpoints of its earlier attempts.

    ``version`` is None until the call has been made or run by code that knows one; ``retry`` is the call's own policy,
    as stored.
    """

    id: str
    root_id: str
    group: str
    addressee: str
    function: str
    version: int | None
    args: list[Any]
    retry: dict[str, Any] | None
    deadline_at: datetime
    failures: int
    attempt: int
    checkpoints: tuple[Checkpoint, ...]

    @property
    def task_name(self) -> str:
        """The name of its Celery task."""
        return f"{self.group}.{self.function}"


class Call(NamedTuple):
    """A call that the attempt made and the table does not have yet, or a local step whose record changes.

    ``args`` and ``value`` are JSON texts. ``timeout`` is the time until the deadline, or the deadline itself, None for
    the default. ``addressee`` names the only node that may run it, if there is one. A local step (``run``) is born
    settled, or stays pending with its failures counted while it will be tried again.
    """

    id: str
    position: int
    kind: Kind
    group: str
    function: str
    args: str
    digest: str
    addressee: str = ""
    version: int | None = None
    timeout: timedelta | datetime | None = None
    retry: dict[str, Any] | None = None
    tags: dict[str, str] | None = None
    state: State = State.PENDING
    value: str | None = None
    error: dict[str, Any] | None = None
    failures: int = 0
    is_known: bool = False


class Interrupted(Exception):
    """The database went away under an atomic step: whether it committed is known when it is back."""


class Journal(Protocol):
    """What an attempt needs of whoever runs it. Each method raises ``AttemptFenced`` if the claim is lost."""

    def record(self, call: Call) -> None:
        """Take one call, in order. It may be written at any time."""

    def commit_with(self, step: Callable[[], Call]) -> Call:
        """Run ``step`` in one transaction with the record of the call that it returns, and return that call.

        What ``step`` raises undoes both and is raised here; so does ``Interrupted``, when the database goes away.
        """

    def cancel(self, promise_ids: Iterable[str]) -> None:
        """Cancel these calls, and what is below them, in one transaction with what was recorded last."""

    def before_user_code(self) -> None:
        """Take note that user code goes on after calls were recorded or canceled: they must not wait for its end."""

    def now(self) -> datetime:
        """Return the time of the database's clock, aware."""


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
    """The function waits for these pending promises: until none of them is pending, or until the ``first`` is not."""

    awaits: tuple[str, ...]
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """The function no longer makes the recorded calls; somebody must look at it."""

    note: str


Decision = Resolved | Rejected | Failed | Suspended | SetAside
