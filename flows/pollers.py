"""Hands ready calls to workers that wait for some, without a message; Temporal calls it a sync match.

A worker whose drain finds nothing more waits a moment at a Redis list for each of its functions. Who makes a call puts
a token there: a worker that waits has it at once, and the list is empty again. A token that nobody took stays, so that
a worker that begins to wait just then looks once more. Like a message, a token is only a hint: the sweep finds what a
lost one was meant for. With a broker that is no Redis nobody waits, and everything goes by message.
"""

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from celery import current_app
from kombu.exceptions import KombuError
from kombu.transport.redis import Channel
from redis import Redis, RedisError

log = logging.getLogger(__name__)

# After the broker was found to be away no thread of this process waits there for so long.
_PAUSE_S = 1.0
_away_until = 0.0


def hand_over(channel: Any, names: Sequence[str]) -> set[str]:
    """Return those of the Celery tasks for which a worker was waiting, and now looks for what is ready.

    Raises what the channel's client raises.
    """
    if not isinstance(channel, Channel):
        return set()
    with channel.client.pipeline(transaction=False) as pipeline:
        for name in names:
            key = _key(name)
            # One token is enough, however many calls there are: whoever comes takes more than one.
            pipeline.delete(key).lpush(key, 1).llen(key)
        left = pipeline.execute()[2::3]
    return {name for name, tokens in zip(names, left, strict=True) if not tokens}


def wait(names: Sequence[str], seconds: float) -> bool:
    """Wait until something may be ready for one of the Celery tasks; return False if the time passed without.

    Returns at once while the broker is away.
    """
    global _away_until
    if time.monotonic() < _away_until:
        return False
    try:
        client = _thread.client()
        return client is not None and client.brpop([_key(name) for name in names], seconds) is not None
    except (KombuError, RedisError, OSError) as error:
        _thread.forget()
        _away_until = time.monotonic() + _PAUSE_S
        log.warning("not waiting for calls, they come by message: %s", error)
        return False


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
