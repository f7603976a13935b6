"""`make bench`: flows beside plain Celery and others, on the same servers, in turn. Starts all that it needs.

Prints medians and the range of the rounds. Other work on the machine shows in the times, less in the ratios.
"""

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from bench.installation import Installation, Setting
from bench.measure import measure
from bench.rows import Row, rows
from bench.system import System
from bench.systems import BASES, SIDES, SYSTEMS
from bench.table import table
from bench.workloads import WORKLOADS, Workload
from local.servers import LOCAL, Servers
from local.stack import Stack


def main(arguments: Sequence[str]) -> int:
    asked = _asked(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    shutil.rmtree(asked.folder, ignore_errors=True)
    with Servers.start(asked.folder) as servers:
        Stack(servers.environ, folder=asked.folder, only=()).migrate()
        measured = list(_measure_all(servers, asked))
    print(table(measured))
    if asked.results:
        asked.results.write_text(json.dumps([asdict(row) for row in measured], indent=1) + "\n")
    return 0


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=_words, help="workloads: W1,W3-100 or W3 for all that begin so")
    parser.add_argument("--systems", type=_words, help="systems, or celery for the plain ones that ratios refer to")
    parser.add_argument("--pools", type=_words, default=["prefork"], help="prefork,threads,solo")
    parser.add_argument("--reps", type=int, help="rounds of each workload (default: its own)")
    parser.add_argument("--folder", type=Path, default=LOCAL / "bench", help="for data and logs; emptied first")
    parser.add_argument("--results", type=Path, help="a file for the rows as JSON")
    return parser.parse_args(arguments)


def _words(text: str) -> list[str]:
    return text.split(",")


def _measure_all(servers: Servers, asked: argparse.Namespace) -> Iterator[Row]:
    workloads = [
        each for each in WORKLOADS if not asked.only or {each.name, each.name.partition("-")[0]} & set(asked.only)
    ]
    systems = _chosen_systems(asked.systems)
    for pool in asked.pools:
        setting = Setting(pool=pool)
        with _installed(systems, servers, setting, asked.folder / pool) as installations:
            for workload in workloads:
                yield from _rows(workload, setting, systems, installations, asked.reps)


def _rows(
    workload: Workload,
    setting: Setting,
    systems: Sequence[System],
    installations: Mapping[str, Installation],
    reps: int | None,
) -> list[Row]:
    measured = rows(workload, str(setting), measure(workload, systems, installations, reps))
    for row in measured:
        figure = f"{row.per_s:.0f}/s" if row.per_s is not None else f"{row.p50_ms:.1f} ms"
        print(f"{row.workload} {row.setting} {row.system}: {figure}", flush=True)
    return measured


def _chosen_systems(names: Sequence[str] | None) -> list[System]:
    if names is None:
        return list(SYSTEMS)
    bases = BASES if "celery" in names else ()
    return [system for system in SYSTEMS if system.name in names or system in bases]


@contextmanager
def _installed(
    systems: Sequence[System], servers: Servers, setting: Setting, folder: Path
) -> Iterator[dict[str, Installation]]:
    """Start the sides of the systems together, and freeze each as soon as it is ready."""
    with ExitStack() as stack:
        sides = dict.fromkeys(system.side.name for system in systems)
        installations = {
            name: stack.enter_context(Installation(SIDES[name], servers, setting, folder / name)) for name in sides
        }
        for installation in installations.values():
            installation.make_ready()
        yield installations


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
