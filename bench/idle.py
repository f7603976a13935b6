"""W8: what nine workers cost that have nothing to do: CPU of all processes and both servers, statements, commands."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import psycopg
import redis

from bench.installation import Installation, Setting
from bench.rows import Row
from bench.run import Run
from bench.systems.celery import CELERY_NESTED
from bench.systems.flows import FLOWS
from local.memory import memory_mb
from local.servers import Servers

WORKLOAD = "W8"
SETTING = Setting(counts=dict.fromkeys(("worker-a", "worker-b", "worker-c"), 3))
SYSTEMS = (CELERY_NESTED, FLOWS)
WATCH_S = 15
A_MINUTE_S = 60
# An idle backend of PostgreSQL publishes what it has counted after ten seconds; workers settle down meanwhile.
SETTLE_S = 11

TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Counts since the start of everything."""

    cpu_s: float
    transactions: int
    redis_commands: int


def measure_idle(run: Run) -> Iterator[Row]:
    """Watch each system for a while, the others frozen."""
    systems = [system for system in SYSTEMS if system in run.systems]
    if not run.wants(WORKLOAD) or not systems:
        return
    with run.installed(systems, SETTING) as installations:
        base: float | None = None
        for system in systems:
            figures = _a_minute(run.servers, installations[system.side.name])
            base = base or figures["cpu_s_a_minute"]
            yield Row(
                workload=WORKLOAD,
                title="nine idle workers for a minute, servers included",
                system=system.name,
                setting="prefork, 9 nodes",
                n=1,
                ratio=figures["cpu_s_a_minute"] / base if CELERY_NESTED in systems else None,
                note=(
                    f"{figures['cpu_s_a_minute']:.1f} s CPU, {figures['transactions_a_minute']:,.0f} transactions, "
                    f"{figures['redis_commands_a_minute']:,.0f} Redis commands, {figures['memory_mb']:,.0f} MB"
                ),
                extra=figures,
            )


def _a_minute(servers: Servers, installation: Installation) -> dict[str, float]:
    with installation.turn():
        time.sleep(SETTLE_S)
        before, began = _spent(servers, installation), time.monotonic()
        time.sleep(WATCH_S)
        after, minutes = _spent(servers, installation), (time.monotonic() - began) / A_MINUTE_S
        return {
            "cpu_s_a_minute": (after.cpu_s - before.cpu_s) / minutes,
            "transactions_a_minute": (after.transactions - before.transactions) / minutes,
            "redis_commands_a_minute": (after.redis_commands - before.redis_commands) / minutes,
            "memory_mb": sum(memory_mb(pid) for pid in installation.pids()),
        }


def _spent(servers: Servers, installation: Installation) -> Spent:
    with psycopg.connect(servers.database_url, autocommit=True) as database:
        row = database.execute(TRANSACTIONS).fetchone()
    with redis.Redis.from_url(servers.redis_url) as client:
        commands = sum(command["calls"] for command in client.info("commandstats").values())
    pids = [*installation.pids(), servers.postgres.pid, servers.redis.pid]
    return Spent(
        cpu_s=sum(_cpu_s(pid) for pid in pids), transactions=int(row[0]) if row else 0, redis_commands=commands
    )


def _cpu_s(pid: int) -> float:
    """Return what the process and its children have used, children that have ended included."""
    process = psutil.Process(pid)
    own = process.cpu_times()
    ended = own.children_user + own.children_system
    times = [own, *(child.cpu_times() for child in process.children(recursive=True))]
    return ended + sum(each.user + each.system for each in times)
