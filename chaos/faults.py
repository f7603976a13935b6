"""The faults: each a function that does its worst to one part of the stack, and returns once the part is whole again.

Only processes that this run started are ever sent a signal.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from random import Random

import psutil
import psycopg
import redis
from celery import Celery

from chaos.database import Database
from local.servers import ServerError, Servers
from local.stack import Stack

GATEWAY = "gateway"
GROUPS = ["north", "south", "service-a", "service-b", "service-c"]
# Longer than a lease (10 s), so that others take over what a frozen node holds.
FREEZE_S = (11.0, 14.0)
OUTAGE_S = (2.0, 6.0)
# Longer than a lease, now and then.
LONG_OUTAGE_S, IS_LONG = 12.0, 0.25
STOP_S = 20.0
BUSY_S = 1.0
DROP_S = (1.0, 3.0)
COPIES = 30
POLL_S = 0.02

SOME_CALLS = """
SELECT id, "group" || '.' || function AS name, "group" FROM flows_promise
WHERE kind IN ('root', 'rpc', 'rfi', 'detached') ORDER BY (state = 'pending') DESC, created_at DESC LIMIT 300
"""
END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


BUSY = "SELECT DISTINCT session >> 9 AS pid FROM flows_promise WHERE phase = 'claimed'"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What faults are done to. ``over`` is set when the run is: whatever waits goes on then."""

    servers: Servers
    stack: Stack
    database: Database
    over: threading.Event

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """Name and main process of every worker that runs."""
        names = [name for name in self.stack.names if name.startswith("worker-")]
        return [(name, pid) for name in names for pid in self.stack.pids(name)]

    @property
    def busy(self) -> set[int]:
        """The processes that have claimed something."""
        return {row["pid"] for row in self.database.rows(BUSY)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What a fault did, in words, and the processes that it hit; none if it hit all or no process in particular.

    ``began_at`` is when it was done, in the time of `time.time()`, if something had to be found or awaited before.
    """

    what: str
    pids: frozenset[int] = frozenset()
    began_at: float | None = None


Fault = Callable[[World, Random], Damage]


def kill_pool_process(world: World, random: Random) -> Damage:
    """Kill -9 one process of a node's pool."""
    name, main = _choose_node(world, random)
    children = _children(main)
    if not children:
        return Damage(what=f"{name} has no pool yet")
    busy = world.busy
    victim = random.choice([child for child in children if child.pid in busy] or children)
    began_at = time.time()
    victim.kill()
    return Damage(what=f"{name}, process {victim.pid}", pids=frozenset([victim.pid]), began_at=began_at)


def kill_main_process(world: World, random: Random) -> Damage:
    """Kill -9 a node's main process alone; the kernel ends its pool."""
    name, main = _choose_node(world, random)
    pids, began_at = _family(main), time.time()
    with suppress(ProcessLookupError):
        os.kill(main, signal.SIGKILL)
    return Damage(what=f"{name}, process {main}", pids=pids, began_at=began_at)


def kill_node(world: World, random: Random) -> Damage:
    """Kill -9 a node's main process and its pool."""
    name, main = _choose_node(world, random)
    pids, began_at = _family(main), time.time()
    _send(main, signal.SIGKILL)
    return Damage(what=f"{name}, processes {sorted(pids)}", pids=pids, began_at=began_at)


def freeze_node(world: World, random: Random) -> Damage:
    """Stop all processes of a node for longer than its lease, then let them go on."""
    name, main = _choose_node(world, random)
    pids, began_at = _family(main), time.time()
    seconds = random.uniform(*FREEZE_S)
    _send(main, signal.SIGSTOP)
    try:
        world.over.wait(seconds)
    finally:
        _send(main, signal.SIGCONT)
    return Damage(what=f"{name} for {seconds:.1f} s, processes {sorted(pids)}", pids=pids, began_at=began_at)


def stop_node(world: World, random: Random) -> Damage:
    """Ask a node to end, as a deployment does, and wait until it has; it loses nothing."""
    name, main = _choose_node(world, random)
    pids, began_at = _family(main), time.time()
    with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        process = psutil.Process(main)
        process.terminate()
        process.wait(STOP_S)
    return Damage(what=f"{name}, process {main}", pids=pids, began_at=began_at)


def kill_gateway(world: World, random: Random) -> Damage:
    """Kill -9 the gateway."""
    pids = world.stack.kill(GATEWAY)
    return Damage(what=f"processes {pids}", pids=frozenset(pids))


def kill_redis(world: World, random: Random) -> Damage:
    """Kill -9 Redis and start it again at once."""
    world.servers.redis.kill()
    world.servers.redis.start()
    return Damage(what="with its append-only file")


def flush_redis(world: World, random: Random) -> Damage:
    """Empty Redis."""
    with _redis(world) as client:
        count = client.dbsize()
        client.flushall()
    return Damage(what=f"{count} keys")


def freeze_redis(world: World, random: Random) -> Damage:
    """Stop Redis for some seconds, then let it go on."""
    seconds = random.uniform(*OUTAGE_S)
    pid = world.servers.redis.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        world.over.wait(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
    return Damage(what=f"for {seconds:.1f} s")


def cut_redis(world: World, random: Random) -> Damage:
    """Close all connections to Redis."""
    with _redis(world) as client:
        count = sum(client.client_kill_filter(_type=kind, skipme=True) for kind in ("normal", "pubsub"))
    return Damage(what=f"{count} connections")


def restart_postgres(world: World, random: Random) -> Damage:
    """Stop PostgreSQL in the mode `immediate`, as a crash would, and start it again at once."""
    _crash_postgres(world)
    world.servers.postgres.start()
    return Damage(what="immediate, and recovered")


def stop_postgres(world: World, random: Random) -> Damage:
    """Have PostgreSQL down for some seconds."""
    seconds = LONG_OUTAGE_S if random.random() < IS_LONG else random.uniform(*OUTAGE_S)
    world.servers.postgres.stop()
    try:
        world.over.wait(seconds)
    finally:
        world.servers.postgres.start()
    return Damage(what=f"for {seconds:.1f} s")


def cut_postgres(world: World, random: Random) -> Damage:
    """End all sessions of clients."""
    with psycopg.connect(world.servers.database_url, autocommit=True) as connection:
        count = len(connection.execute(END_SESSIONS).fetchall())
    return Damage(what=f"{count} sessions")


def double_messages(world: World, random: Random) -> Damage:
    """Send messages again, for calls that wait, run, or have settled long ago."""
    calls = world.database.rows(SOME_CALLS)
    chosen = random.choices(calls, k=COPIES) if calls else []
    sent = 0
    with Celery("chaos", broker=world.servers.redis_url, backend=None, set_as_current=False) as app:
        for call in chosen:
            app.send_task(call["name"], task_id=call["id"], queue=call["group"], ignore_result=True)
            sent += 1
    return Damage(what=f"{sent} messages")


def drop_messages(world: World, random: Random) -> Damage:
    """Take messages out of the queues for some seconds, as fast as workers do."""
    until = time.monotonic() + random.uniform(*DROP_S)
    dropped = 0
    with _redis(world) as client:
        while (left_s := until - time.monotonic()) > 0 and not world.over.is_set():
            dropped += client.blpop(GROUPS, timeout=min(left_s, 0.5)) is not None
    return Damage(what=f"{dropped} messages")


def _crash_postgres(world: World) -> None:
    server = world.servers.postgres
    os.kill(server.pid, signal.SIGQUIT)
    with suppress(ServerError):  # raised once it has ended
        while server.pid:
            time.sleep(POLL_S)


@contextmanager
def _redis(world: World) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(world.servers.redis_url, socket_timeout=5) as client:
        yield client


def families(world: World) -> dict[int, frozenset[int]]:
    """Return the processes of every node that runs, by its main process."""
    return {main: _family(main) for _, main in world.nodes}


def _choose_node(world: World, random: Random) -> tuple[str, int]:
    """Choose a node that has work in hand, if one has within a second: killing an idle one proves little."""
    until = time.monotonic() + BUSY_S
    while time.monotonic() < until:
        busy = world.busy
        if chosen := [node for node in world.nodes if busy & _family(node[1])]:
            return random.choice(chosen)
        time.sleep(POLL_S)
    return random.choice(world.nodes)


def _children(main: int) -> list[psutil.Process]:
    try:
        return psutil.Process(main).children()
    except psutil.NoSuchProcess:
        return []


def _family(main: int) -> frozenset[int]:
    return frozenset([main, *(child.pid for child in _children(main))])


def _send(main: int, number: signal.Signals) -> None:
    """Send a signal to a node's main process and its pool: they are a process group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(main, number)
