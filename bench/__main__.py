"""`make bench`: flows beside plain Celery and others, on the same servers, in turn. Starts all that it needs.

Prints medians and the range of the rounds. Other work on the machine shows in the times, less in the ratios.
"""

import argparse
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.filled import compare_filled
from bench.gateway import measure_gateway
from bench.idle import measure_idle
from bench.installation import Setting
from bench.killed import measure_killed
from bench.report import RESULTS, write_page, write_results
from bench.rows import Row
from bench.run import Run
from bench.system import System
from bench.systems import BASES, SYSTEMS, installed
from bench.systems.celery import CELERY_NESTED
from bench.systems.flows import FLOWS
from bench.table import figure, table
from bench.workloads import CHAINS, FAN_OUTS, LATENCY, LOOPS, SLOW_FAN_OUT, THROUGHPUT
from local.servers import LOCAL, Servers
from local.stack import Stack

SLOW = Setting(pool="threads", concurrency=8, counts={"worker-b": 4})
POOLS = ("threads", "solo")


def main(arguments: Sequence[str]) -> int:
    asked = _asked(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    shutil.rmtree(asked.folder, ignore_errors=True)
    with Servers.start(asked.folder) as servers:
        Stack(servers.environ, folder=asked.folder, only=()).migrate()
        run = Run(
            servers=servers,
            folder=asked.folder,
            systems=_chosen_systems(asked.systems),
            only=asked.only,
            reps=asked.reps,
        )
        measured = list(_shown(_measure(run, asked.pools or ("prefork", *POOLS))))
        print(table(measured))
        if _is_complete(asked):
            write_results(measured, RESULTS)
            write_page(measured, run.systems, servers)
    if asked.results:
        write_results(measured, asked.results)
    return 0


def _is_complete(asked: argparse.Namespace) -> bool:
    return not any((asked.only, asked.systems, asked.pools, asked.reps))


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=_words, help="workloads: W1,W3-100 or W3 for all that begin so")
    parser.add_argument("--systems", type=_words, help="systems, or celery for the plain ones that ratios refer to")
    parser.add_argument("--pools", type=_words, help="prefork,threads,solo")
    parser.add_argument("--reps", type=int, help="rounds of each workload (default: its own)")
    parser.add_argument("--folder", type=Path, default=LOCAL / "bench", help="for data and logs; emptied first")
    parser.add_argument("--results", type=Path, help="a file for the rows as JSON")
    return parser.parse_args(arguments)


def _words(text: str) -> list[str]:
    return text.split(",")


def _chosen_systems(names: Sequence[str] | None) -> list[System]:
    bases = BASES if names and "celery" in names else ()
    chosen = [system for system in SYSTEMS if names is None or system.name in names or system in bases]
    here = installed()
    for system in chosen:
        if system not in here:
            print(f"{system.name} is left out: it is not installed (extra `bench`)")
    return [system for system in chosen if system in here]


def _measure(run: Run, pools: Sequence[str]) -> Iterator[Row]:
    """Measure everything that was asked for; what some may not get done, and what fills the table, comes late."""
    if "prefork" in pools:
        yield from run.compare(Setting(), (LATENCY, *FAN_OUTS, *LOOPS, THROUGHPUT), SYSTEMS)
    for pool in POOLS:
        if pool in pools:
            yield from run.compare(Setting(pool=pool), (*CHAINS, *FAN_OUTS), (FLOWS, *BASES))
    yield from run.compare(SLOW, (SLOW_FAN_OUT,), SYSTEMS)
    yield from measure_killed(run)
    yield from measure_gateway(run)
    yield from measure_idle(run)
    yield from compare_filled(run, (FLOWS, CELERY_NESTED))


def _shown(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print(f"{row.workload} {row.setting} {row.system}: {figure(row)}", flush=True)
        yield row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
