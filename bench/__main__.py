"""`make bench`: flows beside plain Celery and others, on the same servers, in turn. Starts all that it needs.

Prints medians and the range of the rounds. Other work on the machine shows in the times, less in the ratios.
"""

import argparse
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench import filled, gateway, idle, killed
from bench.installation import Setting
from bench.report import RESULTS, write_page, write_results
from bench.rows import Row
from bench.run import Run
from bench.system import System
from bench.systems import BASES, SYSTEMS, installed
from bench.systems.flows import FLOWS
from bench.table import figure, table
from bench.workloads import CALLS, FAN_OUT_100, FAN_OUT_1000, LATENCY, SLOW_FAN_OUT, STEPS, THROUGHPUT
from local.servers import LOCAL, ServerError, Servers
from local.stack import Stack, StackError

SLOW = Setting(pool="threads", concurrency=8, counts={"worker-b": 4})
POOLS = ("threads", "solo")
# What some may not get done comes late: they are out then.
ON_PREFORK = ((LATENCY,), (FAN_OUT_100,), (FAN_OUT_1000,), (STEPS,), (THROUGHPUT,), CALLS)
COMPARED = (*(workload for together in ON_PREFORK for workload in together), SLOW_FAN_OUT, *filled.WORKLOADS)
WORKLOADS = (*(workload.name for workload in COMPARED), killed.WORKLOAD, gateway.WORKLOAD, idle.WORKLOAD)


def main(arguments: Sequence[str]) -> int:
    asked = _asked(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    shutil.rmtree(asked.folder, ignore_errors=True)
    try:
        with Servers.start(asked.folder) as servers:
            _run(servers, asked)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except (ServerError, StackError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(servers: Servers, asked: argparse.Namespace) -> None:
    Stack(servers.environ, folder=asked.folder, only=()).migrate()
    systems = _chosen_systems(asked.systems)
    run = Run(servers=servers, folder=asked.folder, systems=systems, only=asked.only, reps=asked.reps)
    measured: list[Row] = []
    try:
        measured += _shown(_measure(run, _pools(asked)))
    finally:  # also what was measured before something failed
        print(table(measured))
        if asked.results:
            write_results(measured, asked.results)
    if _is_complete(asked):
        write_results(measured, RESULTS)
        write_page(measured, run.systems, servers)


def _pools(asked: argparse.Namespace) -> Sequence[str]:
    return asked.pools or (("prefork",) if asked.only else ("prefork", *POOLS))


def _is_complete(asked: argparse.Namespace) -> bool:
    return not any((asked.only, asked.systems, asked.pools, asked.reps))


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    families = [name.partition("-")[0] for name in WORKLOADS]
    names = ["celery", *(system.name for system in SYSTEMS)]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--only", type=_some_of([*families, *WORKLOADS]), help="workloads: W1,W3-100 or W3 for all that begin so")
    add("--systems", type=_some_of(names), help="systems, or celery for the plain ones that ratios refer to")
    add("--pools", type=_some_of(["prefork", *POOLS]), help="default: all three, or prefork with --only")
    add("--reps", type=int, help="rounds of each workload (default: its own)")
    add("--folder", type=Path, default=LOCAL / "bench", help="for data and logs; emptied first")
    add("--results", type=Path, help="a file for the rows as JSON")
    return parser.parse_args(arguments)


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return the type of an option that takes some of these words, with commas between them."""

    def words(text: str) -> list[str]:
        given = text.split(",")
        if unknown := [word for word in given if word not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(dict.fromkeys(known))}")
        return given

    return words


def _chosen_systems(names: Sequence[str] | None) -> list[System]:
    bases = BASES if names and "celery" in names else ()
    chosen = [system for system in SYSTEMS if names is None or system.name in names or system in bases]
    here = installed()
    for system in chosen:
        if system not in here:
            print(f"{system.name} is left out: it is not installed (extra `bench`)")
    return [system for system in chosen if system in here]


def _measure(run: Run, pools: Sequence[str]) -> Iterator[Row]:
    """Measure everything that was asked for; what fills the table comes last."""
    if "prefork" in pools:
        yield from run.compare(Setting(), ON_PREFORK, SYSTEMS)
    for pool in POOLS:
        if pool in pools:
            fewer = [(replace(each, rounds=2),) for each in (LATENCY, THROUGHPUT, FAN_OUT_100, FAN_OUT_1000)]
            yield from run.compare(Setting(pool=pool), fewer, (FLOWS, *BASES))
    if SLOW.pool in pools:
        yield from run.compare(SLOW, [[SLOW_FAN_OUT]], SYSTEMS)
    yield from killed.measure_killed(run)
    yield from gateway.measure_gateway(run)
    yield from idle.measure_idle(run)
    yield from filled.compare_filled(run)


def _shown(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print(f"{row.workload} {row.setting} {row.system}: {figure(row)}", flush=True)
        yield row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
