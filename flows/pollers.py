"""Hands ready calls to workers that wait for some, without a message; Temporal calls it a sync match.

A worker whose drain finds nothing more waits a moment at a Redis list for each of its functions. Who makes a call puts
a token there: a worker that waits has it at once, and the list is empty again. A token that nobody took stays, so that
a worker that begins to wait just then looks once more.

For a token that nobody took a message is sent. Until a worker comes for it, or for ANNOUNCED_S, others who call the
same function need not send one: whoever comes takes their calls, too.

Like a message, all this is only a hint: the sweep finds what a lost one was meant for. With a broker that is no Redis
nobody waits, and everything goes by message.
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

# A message that takes longer to be seen may have come to a worker that does not know the function, or to none.
ANNOUNCED_S = 0.250

# After the broker was found to be away no thread of this process asks there for so long.
_PAUSE_S = 1.0
_away_until = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """What became of tokens, by the names of their Celery tasks.

    ``taken``: by a worker that waited. ``announced``: a message is on its way already.
    """

    taken: frozenset[str] = frozenset()
    announced: frozenset[str] = frozenset()


def hand_over(channel: Any, names: Sequence[str]) -> HandedOver:
    """Put a token for each of the Celery tasks; announce messages for those that nobody takes.

    Raises what the channel's client raises.
    """
    if not isinstance(channel, Channel):
        return HandedOver()
    with channel.client.pipeline(transaction=False) as pipeline:
        for name in names:
            key = _key(name)
            # One token is enough, however many calls there are: whoever comes takes more than one.
            pipeline.delete(key).lpush(key, 1).llen(key).exists(_mark(name))
        found = pipeline.execute()
        taken = {name for name, count in zip(names, found[2::4], strict=True) if not count}
        announced = {name for name, is_due in zip(names, found[3::4], strict=True) if is_due}
        silent = [name for name in names if name not in taken | announced]
        for name in silent:
            pipeline.set(_mark(name), 1, nx=True, px=int(1000 * ANNOUNCED_S))
        firsts = pipeline.execute() if silent else []
    announced |= {name for name, is_first in zip(silent, firsts, strict=True) if not is_first}
    return HandedOver(taken=frozenset(taken), announced=frozenset(announced))


def clear(names: Sequence[str]) -> bool:
    """Take note that a message has come: who calls from now on sends another. Return False if none was announced.

    Asks also if the broker was away a moment ago: the message shows that it is back.
    """
    found = _ask(lambda client: client.delete(*map(_mark, names)))
    return found is None or found > 0


def wait(names: Sequence[str], seconds: float) -> bool:
    """Wait until something may be ready for one of the Celery tasks; return False if the time passed without.

    Returns at once while the broker is away; True if it was lost just now, perhaps with a token for this worker.
    """
    if time.monotonic() < _away_until:
        return False
    return _ask(lambda client: client.brpop([_key(name) for name in names], seconds), when_lost=True) is not None


def leave() -> None:
    """Close the connection of this thread; a later wait opens another."""
    _thread.leave()


def _ask(ask: "Callable[[Redis], Any]", *, when_lost: Any = None) -> Any:
    """Return the answer of this thread's client; ``when_lost`` if the broker is away, None if it is no Redis."""
    global _away_until
    try:
        client = _thread.client()
        return ask(client) if client is not None else None
    except (KombuError, RedisError, OSError) as error:
        _thread.leave()
        _away_until = time.monotonic() + _PAUSE_S
        log.warning("not waiting for calls, they come by message: %s", error)
        return when_lost


def _key(name: str) -> str:
    return f"flows.ready.{name}"


def _mark(name: str) -> str:
    return f"flows.sent.{name}"


class _Thread(threading.local):
    """One connection a thread, for it blocks; a forked process gets new ones."""

    _pid = 0
    _connection: Any = None
    _channel: Any = None

    def client(self) -> "Redis | None":
        if self._pid != os.getpid():
            self._connection, self._channel, self._pid = current_app.connection_for_write(), None, os.getpid()
        if self._channel is None:
            # Not `default_channel`, which tries for ever to connect.
            self._channel = self._connection.channel()
        return self._channel.client if isinstance(self._channel, Channel) else None

    def leave(self) -> None:
        if self._pid == os.getpid():
            self._connection.release()
        self._pid, self._connection, self._channel = 0, None, None


_thread = _Thread()
