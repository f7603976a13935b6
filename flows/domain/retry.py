"""Retry policies: how long to wait after which failure, and when to give up. Pure, jitter included."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from flows.domain.durations import Duration, to_duration


class RetryPolicy(Protocol):
    """Decides what follows a failed attempt."""

    def delay(self, failures: int, promise_id: str) -> Duration | None:
        """Return the wait before the next attempt, or None to give up. ``failures`` counts from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential:
    """Wait ``initial``, then ``factor`` times longer each time, at most ``maximum``, with up to 20 % of jitter.

    Both are seconds or timedeltas.
    """

    initial: Duration = timedelta(seconds=1)
    factor: float = 2.0
    maximum: Duration = timedelta(seconds=60)
    max_attempts: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "initial", to_duration(self.initial, "initial"))
        object.__setattr__(self, "maximum", to_duration(self.maximum, "maximum"))

    def delay(self, failures: int, promise_id: str) -> timedelta | None:
        """Return the wait before the next attempt, or None to give up."""
        if failures >= self.max_attempts:
            return None
        maximum_s = to_duration(self.maximum).total_seconds()
        try:
            wait_s = min(to_duration(self.initial).total_seconds() * self.factor ** (failures - 1), maximum_s)
        except OverflowError:
            wait_s = maximum_s
        return timedelta(seconds=wait_s * (1 + 0.2 * _fraction(promise_id, failures)))


@dataclass(frozen=True, slots=True)
class Constant:
    """Wait the same time, in seconds or a timedelta, after each failure."""

    wait: Duration
    max_attempts: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "wait", to_duration(self.wait, "wait"))

    def delay(self, failures: int, promise_id: str) -> Duration | None:
        """Return the wait before the next attempt, or None to give up."""
        return self.wait if failures < self.max_attempts else None


@dataclass(frozen=True, slots=True)
class Never:
    """The first failure is final."""

    def delay(self, failures: int, promise_id: str) -> timedelta | None:
        """Return None: there is no next attempt."""
        return None


DEFAULT = Exponential()


def _fraction(promise_id: str, failures: int) -> float:
    """Spread promises that failed together over [0, 1); the same on every replay."""
    mark = hashlib.blake2b(f"{promise_id}#{failures}".encode(), digest_size=4).digest()
    return int.from_bytes(mark) / 2**32
