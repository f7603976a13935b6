"""`make recovery`: how long it takes until work goes on after each fault, on servers and processes of its own.

For a process that dies or freezes: from the fault to the claim by which another session runs the interrupted function
again. For the gateway: from its death to the end of a flow that it had started. For a server: from its return to the
answer to a new await-chain, while others are in flight. Prints the median and the worst of some repetitions; other work
on the machine shows in them.
"""

import argparse
import itertools
import math
import os
import shutil
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psutil
import psycopg
import redis

from local.readiness import responding_workers
from local.servers import LOCAL, Servers
from local.stack import Stack

FOLDER = LOCAL / "recovery"
WORKERS = ("worker-a", "worker-b", "worker-c")
# Of these worker-b has two instances, in a stack of its own that runs in slow motion.
ALL_WORKERS = len(WORKERS) + 1
SLOW_MOTION_S = 0.7
CLIENTS = 4
REDIS_AWAY_S = 5
# Between two tries of Celery's, whose pauses grow: after 30 s and after 42 s.
REDIS_LONG_AWAY_S = 35
POSTGRES_AWAY_S = 30
LOOK_S = 0.005
GIVE_UP_S = 60

RUNNING = """
SELECT p.fence, p.session, p.session >> 9 AS process, n.pid FROM flows_promise p JOIN flows_node n ON n.id = p.node_id
WHERE p.id = %(id)s AND p.phase = 'claimed'
"""
SETTLED = "SELECT 1 FROM flows_promise WHERE id = %(id)s AND state = 'resolved'"
END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is done, how often at most, and how long recovery may take, in seconds."""

    name: str
    measure: Callable[["Site"], float]
    promise_s: float
    is_long: bool = False


class Site:
    """The servers, the stack without service-b, and what is asked of them."""

    def __init__(self, servers: Servers, stack: Stack) -> None:
        self.servers = servers
        self.stack = stack
        self.gateway = httpx.Client(base_url=stack.gateway_url, timeout=90)
        self._keys = itertools.count()

    def key(self) -> str:
        return f"recovery-{next(self._keys)}"

    def answer(self, key: str) -> bool:
        """Tell whether the chain is answered; False while the gateway or the database is away."""
        try:
            answer = self.gateway.post("/await-chain", headers={"Idempotency-Key": key})
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    def has_all_workers(self) -> bool:
        """Tell whether the workers of both stacks answer; each stack would count those of the other as its own."""
        return responding_workers(self.servers.redis_url, expected=ALL_WORKERS) == ALL_WORKERS

    def await_answer(self) -> float:
        """Ask for a new chain until it is answered; return how long that took."""
        key = self.key()
        return await_condition(lambda: self.answer(key))

    def execute(self, statement: str, **params: object) -> list[tuple[int, ...]]:
        with psycopg.connect(self.servers.database_url, autocommit=True) as connection:
            return connection.execute(statement.encode(), params).fetchall()

    @contextmanager
    def load(self) -> Iterator[None]:
        """Keep workers busy with chains of some clients."""
        stopping = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=self.stack.gateway_url, timeout=90) as client:
                while not stopping.is_set():
                    try:
                        client.post("/await-chain", headers={"Idempotency-Key": self.key(), "Prefer": "wait=2"})
                    except httpx.TransportError:
                        time.sleep(0.1)

        clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            time.sleep(0.5)
            yield
        finally:
            stopping.set()
            for client in clients:
                client.join()


def _kill_pool_process(site: Site) -> float:
    return _interrupt(site, lambda _, process: os.kill(process, signal.SIGKILL))


def _kill_node(site: Site) -> float:
    return _interrupt(site, lambda node, _: os.kill(node, signal.SIGKILL))


def _freeze_node(site: Site) -> float:
    frozen: list[psutil.Process] = []

    def freeze(node: int, _: int) -> None:
        frozen.extend([*psutil.Process(node).children(recursive=True), psutil.Process(node)])
        for process in frozen:
            process.suspend()

    try:
        return _interrupt(site, freeze)
    finally:
        for process in frozen:
            process.resume()


def _interrupt(site: Site, strike: Callable[[int, int], None]) -> float:
    """Strike the node and the process that run bar; return how long it takes until another session does."""
    key = site.key()
    site.gateway.post("/await-chain", headers={"Idempotency-Key": key, "Prefer": "respond-async"})
    bar = f"await-chain:{key}.0"
    with psycopg.connect(site.servers.database_url, autocommit=True) as connection:

        def running() -> tuple[int, ...] | None:
            return connection.execute(RUNNING, {"id": bar}).fetchone()

        await_condition(running)
        fence, session, process, node = running() or (0, 0, 0, 0)
        strike(node, process)
        return await_condition(lambda: (now := running()) is not None and now[0] > fence and now[1] != session)


def _kill_gateway(site: Site) -> float:
    """Kill it while a flow that it has started is in flight; the flow ends without it."""
    key = site.key()
    site.gateway.post("/await-chain", headers={"Idempotency-Key": key, "Prefer": "respond-async"})
    site.stack.kill("gateway")
    seconds = await_condition(lambda: site.execute(SETTLED, id=f"await-chain:{key}"))
    site.await_answer()
    return seconds


def _restart_redis(site: Site) -> float:
    site.servers.redis.kill()
    site.servers.redis.start()
    return site.await_answer()


def _empty_redis(site: Site) -> float:
    site.servers.redis.kill()
    site.servers.redis.forget()
    site.servers.redis.start()
    return site.await_answer()


def _keep_redis_away(site: Site, away_s: float = REDIS_AWAY_S) -> float:
    site.servers.redis.kill()
    time.sleep(away_s)
    site.servers.redis.start()
    return site.await_answer()


def _keep_redis_long_away(site: Site) -> float:
    return _keep_redis_away(site, REDIS_LONG_AWAY_S)


def _flush_redis(site: Site) -> float:
    with redis.Redis.from_url(site.servers.redis_url) as client:
        client.flushall()
    return site.await_answer()


def _freeze_redis(site: Site) -> float:
    site.servers.redis.freeze()
    time.sleep(REDIS_AWAY_S)
    site.servers.redis.thaw()
    return site.await_answer()


def _cut_redis(site: Site) -> float:
    with redis.Redis.from_url(site.servers.redis_url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    return site.await_answer()


def _restart_postgres(site: Site) -> float:
    site.servers.postgres.crash()
    site.servers.postgres.start()
    return site.await_answer()


def _keep_postgres_away(site: Site) -> float:
    site.servers.postgres.crash()
    time.sleep(POSTGRES_AWAY_S)
    site.servers.postgres.start()
    return site.await_answer()


def _end_sessions(site: Site) -> float:
    site.execute(END_SESSIONS)
    return site.await_answer()


OF_PROCESSES = (
    Fault(name="pool process killed", measure=_kill_pool_process, promise_s=2),
    Fault(name="node killed", measure=_kill_node, promise_s=2),
    Fault(name="node frozen", measure=_freeze_node, promise_s=12, is_long=True),
)
OF_SERVERS = (
    Fault(name="gateway killed", measure=_kill_gateway, promise_s=2),
    Fault(name="Redis killed, restarted", measure=_restart_redis, promise_s=2),
    Fault(name="Redis restarted empty", measure=_empty_redis, promise_s=2),
    Fault(name="Redis flushed", measure=_flush_redis, promise_s=2),
    Fault(name="Redis connections cut", measure=_cut_redis, promise_s=2),
    Fault(name=f"Redis away for {REDIS_AWAY_S} s", measure=_keep_redis_away, promise_s=2),
    Fault(name=f"Redis away for {REDIS_LONG_AWAY_S} s", measure=_keep_redis_long_away, promise_s=2, is_long=True),
    Fault(name=f"Redis frozen for {REDIS_AWAY_S} s", measure=_freeze_redis, promise_s=2),
    Fault(name="PostgreSQL restarted at once", measure=_restart_postgres, promise_s=2),
    Fault(name="PostgreSQL sessions ended", measure=_end_sessions, promise_s=2),
    Fault(name=f"PostgreSQL away for {POSTGRES_AWAY_S} s", measure=_keep_postgres_away, promise_s=2, is_long=True),
)


def main(arguments: list[str]) -> int:
    asked = _asked(arguments)
    shutil.rmtree(FOLDER, ignore_errors=True)
    print(f"{'fault':<30} {'times':>5} {'median':>8} {'worst':>8} {'promised':>8}")
    with Servers.start(FOLDER) as servers:
        stack = Stack(servers.environ, folder=FOLDER, only={"gateway", *WORKERS}, counts={"worker-b": 0})
        stack.migrate()
        with stack:
            site = Site(servers, stack.wait_ready())
            variables = {**servers.environ, "FLOWS_SLOW_MOTION_S": str(SLOW_MOTION_S)}
            with Stack(variables, folder=FOLDER / "slow", only={"worker-b"}, counts={"worker-b": 2}) as slow:
                for fault in _chosen(OF_PROCESSES, asked.only):
                    _report(fault, [_measured(fault, site, slow) for _ in range(_times(fault, asked))])
            for name in WORKERS:
                stack.scale(name, 2)
            for fault in _chosen(OF_SERVERS, asked.only):
                _report(fault, [_measured_under_load(fault, site) for _ in range(_times(fault, asked))])
    return 0


def _asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.recovery")
    parser.add_argument("--times", type=int, default=10, help="how often each fault is made (default: 10)")
    parser.add_argument("--long-times", type=int, default=3, help="likewise, of those that take long (default: 3)")
    parser.add_argument("--only", default="", help="only faults whose name has this in it")
    asked = parser.parse_args(arguments)
    if min(asked.times, asked.long_times) < 1:
        parser.error("--times and --long-times: each fault is made once at least")
    return asked


def _chosen(faults: tuple[Fault, ...], only: str) -> list[Fault]:
    return [fault for fault in faults if only in fault.name]


def _times(fault: Fault, asked: argparse.Namespace) -> int:
    return int(asked.long_times if fault.is_long else asked.times)


def _measured(fault: Fault, site: Site, slow: Stack) -> float:
    slow.wait_ready()
    await_condition(site.has_all_workers)
    # Whoever has just been started has a chain to do before it is struck, so that its session is known.
    site.await_answer()
    return fault.measure(site)


def _measured_under_load(fault: Fault, site: Site) -> float:
    site.await_answer()
    with site.load():
        seconds = fault.measure(site)
    if seconds == math.inf:  # workers live, and take nothing: only their end helps
        for name in WORKERS:
            site.stack.kill(name)
        site.await_answer()
    return seconds


def _report(fault: Fault, seconds: list[float]) -> None:
    median, worst = statistics.median(seconds), max(seconds)
    mark = "" if worst <= fault.promise_s else "  late"
    print(
        f"{fault.name:<30} {len(seconds):>5} {median:>6.1f} s {worst:>6.1f} s {fault.promise_s:>6.0f} s{mark}",
        flush=True,
    )


def await_condition(condition: Callable[[], object]) -> float:
    """Return how long it took until the condition was true, infinity if it is false after a minute."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > GIVE_UP_S:
            return math.inf
        time.sleep(LOOK_S)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
