"""Hands ready calls to workers that wait for some, without a message; Temporal calls it a sync match.

A worker whose drain finds nothing more waits a moment at a Redis list for each of its functions. Who makes a call puts
a token there: a worker that waits has it at once, and the list is empty again. If nobody takes it a message is sent,
and the token stays: a worker that begins to wait just then looks once more, and until one has taken it nobody else
needs to send a message. Like a message, a token is only a hint: the sweep finds what a lost one was meant for. With a
broker that is no Redis nobody waits, and everything goes by message.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from celery import current_app
from kombu.exceptions import KombuError
from kombu.transport.redis import Channel
from redis import Redis, RedisError

log = logging.getLogger(__name__)

# After the broker was found to be away no thread of this process asks there for so long.
_PAUSE_S = 1.0
_away_until = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """What became of tokens, by the names of their Celery tasks.

    ``taken``: by a worker that waited. ``announced``: one lay there already, so a message is on its way.
    """

    taken: frozenset[str] = frozenset()
    announced: frozenset[str] = frozenset()


def hand_over(channel: Any, names: Sequence[str]) -> HandedOver:
    """Put a token for each of the Celery tasks. Raises what the channel's client raises."""
    if not isinstance(channel, Channel):
        return HandedOver()
    with channel.client.pipeline(transaction=False) as pipeline:
        for name in names:
            key = _key(name)
            # One token is enough, however many calls there are: whoever comes takes more than one.
            pipeline.delete(key).lpush(key, 1).llen(key)
        answers = pipeline.execute()
    return HandedOver(
        taken=frozenset(name for name, left in zip(names, answers[2::3], strict=True) if not left),
        announced=frozenset(name for name, found in zip(names, answers[::3], strict=True) if found),
    )


def clear(names: Sequence[str]) -> bool:
    """Take away the tokens that a message was sent for, as it has come; return False if there were none."""
    found = _ask(lambda client: client.delete(*map(_key, names)))
    return found is None or found > 0


def wait(names: Sequence[str], seconds: float) -> bool:
    """Wait until something may be ready for one of the Celery tasks; return False if the time passed without.

    Returns at once while the broker is away.
    """
    return _ask(lambda client: client.brpop([_key(name) for name in names], seconds)) is not None


def _ask(ask: "Callable[[Redis], Any]") -> Any:
    """Return the answer of this thread's client; None while the broker is away, or if it is no Redis."""
    global _away_until
    if time.monotonic() < _away_until:
        return None
    try:
        client = _thread.client()
        return ask(client) if client is not None else None
    except (KombuError, RedisError, OSError) as error:
        _thread.forget()
        _away_until = time.monotonic() + _PAUSE_S
        log.warning("not waiting for calls, they come by message: %s", error)
        return None


def _key(name: str) -> str:
    return f"flows.ready.{name}"


class _Thread(threading.local):
    """One connection a thread, for it blocks; a forked process gets new ones."""

    _pid = 0
    _channel: Any = None

    def client(self) -> "Redis | None":
        if self._pid != os.getpid():
            # Not `default_channel`, which tries for ever to connect.
            self._channel, self._pid = current_app.connection_for_write().channel(), os.getpid()
        return self._channel.client if isinstance(self._channel, Channel) else None

    def forget(self) -> None:
        self._pid, self._channel = 0, None


_thread = _Thread()
