"""Retry policies: how long to wait after which failure, and when to give up. Pure, jitter included."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Protocol

from flows.domain.durations import Duration, to_duration
from flows.domain.errors import InvalidInputError

# An exception class, or its name. A subclass is matched by the name of any of its bases.
ErrorName = type[BaseException] | str


class RetryPolicy(Protocol):
    """Decides what follows a failed attempt."""

    def delay(self, failures: int, error: BaseException, promise_id: str) -> Duration | None:
        """Return the wait before the next attempt, or None to give up. ``failures`` counts from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential:
    """Wait ``initial``, then ``factor`` times longer each time, at most ``maximum``, with up to 20 % of jitter.

    Both are seconds or timedeltas. Errors of ``non_retryable`` classes, or class names, are final at once.
    """

    initial: Duration = timedelta(seconds=1)
    factor: float = 2.0
    maximum: Duration = timedelta(seconds=60)
    max_attempts: int = 10
    non_retryable: tuple[ErrorName, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "initial", to_duration(self.initial, "initial"))
        object.__setattr__(self, "maximum", to_duration(self.maximum, "maximum"))
        _check_max_attempts(self.max_attempts)
        object.__setattr__(self, "non_retryable", _names(self.non_retryable))

    def delay(self, failures: int, error: BaseException, promise_id: str) -> timedelta | None:
        """Return the wait before the next attempt, or None to give up."""
        if failures >= self.max_attempts or _is_one_of(error, self.non_retryable):
            return None
        maximum_s = to_duration(self.maximum).total_seconds()
        try:
            wait_s = min(to_duration(self.initial).total_seconds() * self.factor ** (failures - 1), maximum_s)
        except OverflowError:
            wait_s = maximum_s
        return timedelta(seconds=wait_s * (1 + 0.2 * _fraction(promise_id, failures)))


@dataclass(frozen=True, slots=True)
class Constant:
    """Wait the same time, in seconds or a timedelta, after each failure. ``non_retryable`` as for ``Exponential``."""

    wait: Duration
    max_attempts: int = 10
    non_retryable: tuple[ErrorName, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "wait", to_duration(self.wait, "wait"))
        _check_max_attempts(self.max_attempts)
        object.__setattr__(self, "non_retryable", _names(self.non_retryable))

    def delay(self, failures: int, error: BaseException, promise_id: str) -> Duration | None:
        """Return the wait before the next attempt, or None to give up."""
        is_final = failures >= self.max_attempts or _is_one_of(error, self.non_retryable)
        return None if is_final else self.wait


@dataclass(frozen=True, slots=True)
class Never:
    """The first failure is final."""

    def delay(self, failures: int, error: BaseException, promise_id: str) -> timedelta | None:
        """Return None: there is no next attempt."""
        return None


def check_policy(policy: object, field: str = "retry") -> None:
    """Raise ``InvalidInputError`` unless ``policy`` can decide what follows a failure."""
    if isinstance(policy, type) or not callable(getattr(policy, "delay", None)):
        raise InvalidInputError(
            field, f"must be a policy, such as Exponential(…), Constant(…) or Never(), not {policy!r}"
        )


_STORABLE: dict[str, type[Exponential | Constant | Never]] = {
    "exponential": Exponential,
    "constant": Constant,
    "never": Never,
}


def to_json(policy: RetryPolicy) -> dict[str, Any]:
    """Return ``policy`` as it travels with a call; raise ``InvalidInputError`` if it is none of this module's."""
    for name, kind in _STORABLE.items():
        if isinstance(policy, kind):
            fields = {key: value.total_seconds() if isinstance(value, timedelta) else value for key, value in
                      asdict(policy).items()}  # fmt: skip
            return {"policy": name, **fields}
    raise InvalidInputError(
        "retry", f"a call carries Exponential(…), Constant(…) or Never(), not {policy!r}; give others to @durable"
    )


def from_json(stored: dict[str, Any]) -> RetryPolicy:
    """Return the policy that ``to_json`` wrote."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    kind: Callable[..., RetryPolicy] = _STORABLE[fields.pop("policy")]
    return kind(**fields)


def _check_max_attempts(count: int) -> None:
    if count < 1:
        raise InvalidInputError("max_attempts", f"must be at least 1, and is {count}")


def _names(errors: Iterable[ErrorName]) -> tuple[str, ...]:
    if isinstance(errors, str | type):
        raise InvalidInputError("non_retryable", f"must be a tuple, such as ({errors!r},)")
    return tuple(error if isinstance(error, str) else error.__name__ for error in errors)


def _is_one_of(error: BaseException, names: tuple[ErrorName, ...]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _fraction(promise_id: str, failures: int) -> float:
    """Spread promises that failed together over [0, 1); the same on every replay."""
    mark = hashlib.blake2b(f"{promise_id}#{failures}".encode(), digest_size=4).digest()
    return int.from_bytes(mark) / 2**32


DEFAULT = Exponential()
