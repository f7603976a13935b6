"""W7: the gateway under HTTP: the await chain through it, the rate of starts, and how many callers it holds waiting."""

import asyncio
import itertools
import os
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus

import psutil
import psycopg
import redis

from bench.installation import PROCFILES
from bench.recovery import await_condition
from bench.rows import MS, Row, median_and_range
from bench.run import Run
from bench.systems.flows import FLOWS, GROUPS, variables
from local.ports import LOOPBACK
from local.servers import Servers
from local.stack import Stack

WORKLOAD = "W7"
WARM_UP = 20
ONE_AT_A_TIME = 100
STARTS = 300
CONNECTIONS = 32
ROUNDS = 3
WAITERS = 2000
FLOWS_AWAITED = 20
# The longest that the gateway lets anybody wait.
WAIT_S = 60
LOOK_S = 1
IDLE_PERCENT = 20

PENDING = "SELECT 1 FROM flows_promise WHERE state = 'pending' LIMIT 1"
POST = """\
POST /await-chain HTTP/1.1
Host: {host}
Idempotency-Key: {key}
Prefer: {prefer}
Content-Length: 0
Connection: close

"""
WAIT = f"wait={WAIT_S}"
_keys = (f"bench-{number}" for number in itertools.count())


def measure_gateway(run: Run) -> Iterator[Row]:
    """Measure one gateway with one worker for each group."""
    if not run.wants(WORKLOAD) or FLOWS not in run.systems:
        return
    environ = variables(run.servers) | {"POOL": "prefork", "CONCURRENCY": "1"}
    with Stack(environ, folder=run.folder / "gateway", procfile=PROCFILES / "gateway") as stack:
        stack.wait_ready()
        yield from asyncio.run(_measure(stack, run.reps or ROUNDS))
        _await_quiet(run.servers)


async def _measure(stack: Stack, rounds: int) -> list[Row]:
    port = int(stack.environ["GATEWAY_PORT"])
    for _ in range(WARM_UP):
        await _timed_chain(port)
    took_ms = [await _timed_chain(port) * MS for _ in range(ONE_AT_A_TIME)]
    waited_s, answered = await _hold_waiters(stack, port)
    rates = [await _start_rate(port) for _ in range(rounds)]
    rate, spread = median_and_range(rates)
    p95_ms = statistics.quantiles(took_ms, n=20)[18]
    latency = _row("latency", "await chain through HTTP, one at a time")
    waiters = _row("waiters", f"{WAITERS:,} callers wait for {FLOWS_AWAITED} flows: all answered after the workers run")
    late = "" if answered == WAITERS else f"{WAITERS - answered:,} were told 202 after {WAIT_S} s"
    starts = _row("starts", "POSTs that do not wait, answered")
    return [
        replace(latency, p50_ms=statistics.median(took_ms), p95_ms=p95_ms, n=ONE_AT_A_TIME),
        replace(waiters, p50_ms=waited_s * MS, n=answered, note=late),
        replace(starts, per_s=rate, spread=spread, n=rounds * STARTS),
    ]


def _row(name: str, title: str) -> Row:
    return Row(workload=f"{WORKLOAD}-{name}", title=title, system=FLOWS.name, setting="prefork")


def _await_quiet(servers: Servers) -> None:
    """Let the flows that were only started end, and their messages: nobody else should be measured beside them."""
    with (
        psycopg.connect(servers.database_url, autocommit=True) as database,
        redis.Redis.from_url(servers.redis_url) as broker,
    ):
        await_condition(lambda: database.execute(PENDING).fetchone() is None)
        await_condition(lambda: not any(broker.exists(group) for group in GROUPS))


async def _post(port: int, key: str, prefer: str) -> HTTPStatus:
    """Return the status that one request, on a connection of its own, is answered with.

    In bytes: a client library takes twice as long for it as the gateway does.
    """
    request = POST.format(host=f"{LOOPBACK}:{port}", key=key, prefer=prefer)
    async with asyncio.timeout(WAIT_S + 10):
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.write(request.replace("\n", "\r\n").encode())
        answer = await reader.read()
        writer.close()
    if not answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 202 ")):
        raise RuntimeError(f"await-chain:{key} was answered {answer!r}")
    return HTTPStatus(int(answer.split()[1]))


async def _timed_chain(port: int) -> float:
    began = time.perf_counter()
    status = await _post(port, next(_keys), WAIT)
    if status is not HTTPStatus.OK:
        raise RuntimeError(f"a chain has not ended after {WAIT_S} s")
    return time.perf_counter() - began


async def _start_rate(port: int) -> float:
    free = asyncio.Semaphore(CONNECTIONS)

    async def start() -> None:
        async with free:
            await _post(port, next(_keys), "respond-async")

    began = time.perf_counter()
    await asyncio.gather(*(start() for _ in range(STARTS)))
    return STARTS / (time.perf_counter() - began)


async def _hold_waiters(stack: Stack, port: int) -> tuple[float, int]:
    """Freeze the workers, let all wait, thaw; return the seconds until the last answer, and how many came in time."""
    workers = [pid for name in stack.names if name != "gateway" for pid in stack.pids(name)]
    keys = itertools.cycle([next(_keys) for _ in range(FLOWS_AWAITED)])
    for pid in workers:
        os.killpg(pid, signal.SIGSTOP)
    waiting = [asyncio.create_task(_post(port, key, WAIT)) for key in itertools.islice(keys, WAITERS)]
    await _all_wait(stack)
    for pid in workers:
        os.killpg(pid, signal.SIGCONT)
    began = time.perf_counter()
    answered = (await asyncio.gather(*waiting)).count(HTTPStatus.OK)
    return time.perf_counter() - began, answered


async def _all_wait(stack: Stack) -> None:
    """Return when all are connected, and the gateway has read and begun what they ask: it has nothing to do then.

    Or after half of the time that they wait: the rest is for the answers.
    """
    [pid] = stack.pids("gateway")
    gateway = psutil.Process(pid)
    deadline = time.monotonic() + WAIT_S / 2
    while len(gateway.net_connections("tcp")) <= WAITERS or gateway.cpu_percent() > IDLE_PERCENT:
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(LOOK_S)
