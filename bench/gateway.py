"""`make measure`: latency and throughput of the await chain through HTTP, and what it costs PostgreSQL.

Prints medians of one run on servers and processes of its own; other work on the machine shows in them.
"""

import asyncio
import shutil
import statistics
import time

import httpx
import psycopg

from local.servers import LOCAL, Servers
from local.stack import Stack

FOLDER = LOCAL / "measure"
WARM_UP = 50
ONE_AT_A_TIME = 200
AT_ONCE = 500
# What PostgreSQL has counted is published by its backends about once a second.
STATISTICS_S = 1.5


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    with Servers.start(FOLDER) as servers:
        stack = Stack(servers.environ, folder=FOLDER)
        stack.migrate()
        with stack, psycopg.connect(servers.database_url, autocommit=True) as database:
            stack.wait_ready()
            asyncio.run(_measure(stack.gateway_url, database))


async def _measure(url: str, database: psycopg.Connection) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=AT_ONCE)) as gateway:
        for number in range(WARM_UP):
            await _await_chain(gateway, f"warm-{number}")
        idle_per_s = await _idle(database)
        before, began = await _transactions(database), time.monotonic()
        took_s = [await _await_chain(gateway, f"one-{number}") for number in range(ONE_AT_A_TIME)]
        after, ended = await _transactions(database), time.monotonic()
        per_chain = (after - before - idle_per_s * (ended - began)) / ONE_AT_A_TIME
        p95_s = statistics.quantiles(took_s, n=20)[18]
        print(f"await-chain, one at a time: p50 {1000 * statistics.median(took_s):.1f} ms, p95 {1000 * p95_s:.1f} ms")
        print(f"PostgreSQL transactions per await-chain: {per_chain:.1f}; idle, with nine workers: {idle_per_s:.1f}/s")
        began = time.monotonic()
        await asyncio.gather(*(_await_chain(gateway, f"many-{number}") for number in range(AT_ONCE)))
        all_s = time.monotonic() - began
        print(f"await-chain, {AT_ONCE} requests at once: {all_s:.2f} s, {AT_ONCE / all_s:.0f} chains/s")


async def _await_chain(gateway: httpx.AsyncClient, key: str) -> float:
    began = time.monotonic()
    answer = await gateway.post("/await-chain", headers={"Idempotency-Key": key})
    if answer.json() != {"message": 3}:
        raise RuntimeError(f"await-chain:{key} answered {answer.status_code}: {answer.text}")
    return time.monotonic() - began


async def _idle(database: psycopg.Connection) -> float:
    before = await _transactions(database)
    began = time.monotonic()
    await asyncio.sleep(5)
    return (await _transactions(database) - before) / (time.monotonic() - began)


async def _transactions(database: psycopg.Connection) -> int:
    await asyncio.sleep(STATISTICS_S)
    row = database.execute(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    return int(row[0]) if row else 0


if __name__ == "__main__":
    main()
