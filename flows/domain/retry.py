"""Retry policies: how long to wait after which failure, and when to give up. Pure, jitter included."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol


class RetryPolicy(Protocol):
    """Decides what follows a failed attempt."""

    def delay(self, failures: int, promise_id: str) -> timedelta | None:
        """Return the wait before the next attempt, or None to give up. ``failures`` counts from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential:
    """Wait ``initial``, then ``factor`` times longer each time, at most ``maximum``, with up to 20 % of jitter."""

    initial: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    maximum: timedelta = timedelta(seconds=60)
    max_attempts: int = 10

    def delay(self, failures: int, promise_id: str) -> timedelta | None:
        """Return the wait before the next attempt, or None to give up."""
        if failures >= self.max_attempts:
            return None
        try:
            wait_s = min(self.initial.total_seconds() * self.factor ** (failures - 1), self.maximum.total_seconds())
        except OverflowError:
            wait_s = self.maximum.total_seconds()
        return timedelta(seconds=wait_s * (1 + 0.2 * _fraction(promise_id, failures)))


@dataclass(frozen=True, slots=True)
class Constant:
    """Wait the same time after each failure."""

    wait: timedelta
    max_attempts: int = 10

    def delay(self, failures: int, promise_id: str) -> timedelta | None:
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
