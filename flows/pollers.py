"""Hands ready calls to workers that wait for some, without a message; Temporal calls it a sync match.

A worker whose drain finds nothing more waits a moment at a Redis list for each of its functions, of all groups that it
serves. Who makes a call puts a token there: a worker that waits has it at once, and the list is empty again. A token
that nobody took stays, so that a worker that begins to wait just then looks once more. Of many that wait Redis chooses
the one that has waited longest; who keeps a promise open waits at a list of that promise, too, where the token for its
going on is put first.

For a token that nobody took a message is sent. Until a worker comes for it, or for ANNOUNCED_S, others who call the
same function need not send one: whoever comes takes their calls, too.

Like a message, all this is only a hint: the sweep finds what a lost one was meant for. With a broker that is no Redis
nobody waits, and everything goes by message.
"""

import logging
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from celery import current_app
from kombu.exceptions import KombuError
from kombu.transport.redis import PRIORITY_STEPS, Channel
from redis import RedisError

log = logging.getLogger(__name__)

# A message that takes longer to be seen may have come to a worker that does not know the function, or to none.
ANNOUNCED_S = 0.250

# After the broker was found to be away no thread of this process asks there for so long.
_PAUSE_S = 1.0
_away_until = 0.0

# What is raised when the broker is away.
_OUTAGES = (KombuError, RedisError, OSError)

# An answer that is due, as its time is up, and has not come after that, is late.
_OVERDUE_S = 0.005

# A command, its keys, and its other arguments.
Command = tuple[Any, ...]

# Connections that nobody uses just now, the last used at the end.
_idle: "list[_Connection]" = []


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """What became of tokens, by the names of their Celery tasks.

    ``taken``: by a worker that waited. ``announced``: a message is on its way already.
    """

    taken: frozenset[str] = frozenset()
    announced: frozenset[str] = frozenset()


def hand_over(tokens: Mapping[str, str | None], unannounced: Collection[str] = ()) -> HandedOver:
    """Put a token for each of the Celery tasks; announce messages for those that nobody takes, but ``unannounced``.

    Of a promise that goes on the id is given: who keeps it open has the token rather than anybody else.
    Raises ``KombuError``, ``RedisError`` or ``OSError`` if the broker is away.
    """
    taken = _taken_by_keepers({name: promise_id for name, promise_id in tokens.items() if promise_id is not None})
    names = [name for name in tokens if name not in taken]
    # One token is enough, however many calls there are: whoever comes takes more than one.
    found = _ask(*(command for name in names for command in _token(name)))
    if not found:
        return HandedOver(taken=taken)
    taken |= {name for name, count in zip(names, found[2::4], strict=True) if not count}
    announced = {name for name, is_due in zip(names, found[3::4], strict=True) if is_due}
    silent = [name for name in names if name not in taken | announced and name not in unannounced]
    if silent:
        firsts = _ask(*(("SET", [_mark(name)], 1, "NX", "PX", int(1000 * ANNOUNCED_S)) for name in silent))
        announced |= {name for name, is_first in zip(silent, firsts, strict=True) if not is_first}
    return HandedOver(taken=taken, announced=frozenset(announced))


def clear(names: Sequence[str]) -> bool:
    """Take note that a message has come: who calls from now on sends another. Return False if none was announced.

    Asks also if the broker was away a moment ago: the message shows that it is back.
    """
    try:
        found = _ask(("DEL", [_mark(name) for name in names]))
    except _OUTAGES as error:
        _note_away(error)
        return True
    return not found or found[0] > 0


def has_messages(queues: Iterable[str]) -> bool:
    """Return True if a message waits in one of these queues; also while the broker is away, and if it is no Redis.

    What a worker has fetched already waits in none.
    """
    if time.monotonic() < _away_until:
        return True
    try:
        found = _ask(*(("LLEN", [key]) for queue in queues for key in _lists(queue)))
    except _OUTAGES as error:
        _note_away(error)
        return True
    return not found or any(found)


def wait(names: Sequence[str], seconds: float, keeps: tuple[str, str] | None = None) -> Sequence[str]:
    """Wait until something may be ready for one of the Celery tasks; return its name, or nothing after that time.

    ``keeps`` is the promise that this thread keeps open, and the name of its task, if there is one.

    Returns at once while the broker is away. If it was lost just now, perhaps with a token for this worker, that may
    have been for any of the tasks: all are returned.
    """
    if time.monotonic() < _away_until:
        return []
    lists = {_kept(keeps[0]): keeps[1]} if keeps else {}
    lists |= {_key(name): name for name in names}
    try:
        found = _ask(("BRPOP", [*lists], seconds), waits_s=seconds)
    except _OUTAGES as error:
        _note_away(error)
        return names
    if not found or found[0] is None:
        return []
    key = found[0][0].decode()  # with the broker's own prefix
    return [next(name for each, name in lists.items() if key.endswith(each))]


def leave() -> None:
    """Close the connections that are not in use; whoever needs one opens another."""
    while (connection := _pop()) is not None:
        connection.close()


def _taken_by_keepers(promise_ids: Mapping[str, str]) -> frozenset[str]:
    keys = [[_kept(promise_id)] for promise_id in promise_ids.values()]
    found = _ask(*(command for key in keys for command in (("LPUSH", key, 1), ("DEL", key))))
    return frozenset(name for name, left in zip(promise_ids, found[1::2], strict=False) if not left)


def _token(name: str) -> list[Command]:
    keys = [_key(name)]
    return [("DEL", keys), ("LPUSH", keys, 1), ("LLEN", keys), ("EXISTS", [_mark(name)])]


def _lists(queue: str) -> list[str]:
    """Return where kombu keeps the messages of a queue: a list for each step of priority."""
    options = current_app.conf.broker_transport_options
    steps, separator = options.get("priority_steps", PRIORITY_STEPS), options.get("sep", Channel.sep)
    return [f"{queue}{separator}{step}" if step else queue for step in steps]


def _key(name: str) -> str:
    return f"flows.ready.{name}"


def _kept(promise_id: str) -> str:
    return f"flows.kept.{promise_id}"


def _mark(name: str) -> str:
    return f"flows.sent.{name}"


def _ask(*commands: Command, waits_s: float = 0) -> list[Any]:
    """Return the answers to the commands, which are sent together; none if the broker is no Redis.

    ``waits_s`` is how long the broker is asked to wait for something before it answers.
    """
    if not commands:
        return []
    connection = _unused() or _Connection()
    try:
        answers = connection.ask(commands, waits_s)
    except BaseException:  # answers that nobody has read would be taken for those of the next commands
        connection.close()
        raise
    _idle.append(connection)
    return answers


def _unused() -> "_Connection | None":
    while (connection := _pop()) is not None and not connection.is_usable():
        connection.close()
    return connection


def _pop() -> "_Connection | None":
    try:
        return _idle.pop()
    except IndexError:  # there is none, or another thread was faster
        return None


def _note_away(error: Exception) -> None:
    global _away_until
    _away_until = time.monotonic() + _PAUSE_S
    log.warning("not waiting for calls, they come by message: %s", error)


class _Connection:
    """A connection to the broker, used as it is: redis-py's client takes longer for a command than Redis does."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._kombu = current_app.connection_for_write()
        # Not `default_channel`, which tries for ever to connect.
        channel: Any = self._kombu.channel()
        is_redis = isinstance(channel, Channel)
        self._prefix: str = channel.global_keyprefix if is_redis else ""
        self._redis: Any = channel.client.connection_pool.get_connection() if is_redis else None

    def is_usable(self) -> bool:
        """Return False if it was closed meanwhile, or belongs to the process that this one was forked from."""
        if self._pid != os.getpid():
            return False
        try:
            return self._redis is None or not self._redis.can_read()
        except RedisError:
            return False

    def ask(self, commands: Sequence[Command], waits_s: float) -> list[Any]:
        """Return the answers, none if the broker is no Redis."""
        if self._redis is None:
            return []
        packed = [(name, *(self._prefix + key for key in keys), *others) for name, keys, *others in commands]
        self._redis.send_packed_command(self._redis.pack_commands(packed))
        if waits_s and not self._redis.can_read(waits_s + _OVERDUE_S):
            # A Redis with nothing to do looks at its clock `hz` times a second, that is ten. Any command has it do so;
            # this connection waits, so it goes over another one.
            _ask(("PING", []))
        return [self._redis.read_response() for _ in commands]

    def close(self) -> None:
        """Close it; a forked process leaves its parent's alone."""
        if self._pid == os.getpid():
            if self._redis is not None:
                self._redis.disconnect()
            self._kombu.release()
