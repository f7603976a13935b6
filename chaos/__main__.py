"""`make chaos`: at least 300 flows on real processes under a seeded nemesis, and a judgement. Ends by itself.

Status 0 means that no invariant broke, that at least 95 % of the flows settled in time and the others later, and that
at least ten faults were injected.
"""

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from chaos.database import Database
from chaos.deaths import Deaths
from chaos.diary import FOLDER_VARIABLE
from chaos.evidence import Evidence, collect
from chaos.faults import World
from chaos.nemesis import PROCESS_FAULTS, SERVER_FAULTS, Lane
from chaos.plan import GRACE_S, Planned, plan
from chaos.report import lines, make_report
from local.ports import free_port
from local.process import ROOT
from local.servers import LOCAL, ServerError, Servers
from local.stack import Stack, StackError

if TYPE_CHECKING:
    from chaos.driver import Driver

PROCFILE = ROOT / "chaos" / "Procfile"
COUNTS = {"worker-north": 2, "worker-south": 2, "worker-services": 1}
PROGRESS_EVERY_S = 5.0
LOOK_S = 0.25

# Flows and the detached calls that they started; what is ready or claimed has still something to do.
STANDING = """
SELECT count(*) FILTER (WHERE kind = 'root') AS begun,
    count(*) FILTER (WHERE kind = 'root' AND state <> 'pending') AS settled,
    count(*) FILTER (WHERE state = 'pending' AND kind <> 'run') AS pending
FROM flows_promise
"""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    print(f"seed {options.seed}, {options.minutes:g} minutes", flush=True)
    try:
        # Promises are for ever: an earlier run's would be found instead of begun.
        shutil.rmtree(options.folder, ignore_errors=True)
        with Servers.start(options.folder) as servers:
            evidence, violations = _run(servers, options.folder, options.seed, options.minutes * 60)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except (ServerError, StackError) as error:
        print(error, file=sys.stderr)
        return 1
    report = make_report(options.seed, evidence, violations)
    print("\n".join(lines(report)))
    print("good" if report.is_good else f"not good; `make chaos SEED={options.seed}` does the same again")
    if options.report:
        summary = asdict(report) | {"share_in_time": report.share_in_time, "is_good": report.is_good}
        options.report.write_text(json.dumps(summary, indent=1))
    return 0 if report.is_good else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long flows start and faults are injected")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides flows and faults")
    parser.add_argument("--folder", type=Path, default=LOCAL / "chaos", help="for data and logs; emptied first")
    parser.add_argument("--report", type=Path, help="a file for the figures as JSON")
    return parser.parse_args(arguments)


def _run(servers: Servers, folder: Path, seed: int, seconds: float) -> tuple[Evidence, list[str]]:
    folder = folder.resolve()
    variables = {
        **servers.environ,
        "DJANGO_SETTINGS_MODULE": "chaos.settings",
        "GATEWAY_PORT": str(free_port()),
        FOLDER_VARIABLE: str(folder),
    }
    stack = Stack(variables, folder=folder, counts=COUNTS, procfile=PROCFILE)
    stack.migrate()
    _set_up_django(variables, folder)
    from chaos.driver import Driver

    planned = plan(seed, seconds)
    database = Database(servers.database_url)
    over = threading.Event()
    world = World(servers=servers, stack=stack, database=database, over=over)
    lanes = [Lane("processes", PROCESS_FAULTS, world, seed), Lane("servers", SERVER_FAULTS, world, seed)]
    deaths = Deaths(world)
    with stack:
        stack.wait_ready()
        driver = Driver(planned, database, stack.gateway_url, Random(f"{seed} driver"))
        began = time.monotonic()
        driver.start()
        try:
            with deaths, _progress(began, database, driver, lanes):
                _inject(lanes, began + seconds, over)
                _await_quiet(database, driver, planned)
        finally:
            over.set()
            driver.stop()
    faults = [fault for lane in lanes for fault in lane.injected]
    violations = [*driver.violations, *(violation for lane in lanes for violation in lane.violations)]
    return collect(planned, database, faults, deaths.unexplained(faults)), violations


def _set_up_django(variables: dict[str, str], folder: Path) -> None:
    """Make this process one that starts flows; what it logs goes to a file, beside those of the stack."""
    os.environ.update(variables)
    logging.basicConfig(filename=folder / "log" / "chaos.log", level=logging.INFO, format="%(asctime)s %(message)s")
    import django

    from chaos import celery_app

    celery_app.app.set_current()
    django.setup()


def _inject(lanes: Sequence[Lane], until: float, over: threading.Event) -> None:
    """Run the lanes until the monotonic time, the servers' one in this thread: it is the one that started them."""
    processes, servers = lanes
    beside = threading.Thread(target=processes.run, args=(until, over), name="processes")
    beside.start()
    try:
        servers.run(until, over)
    except BaseException:
        over.set()
        raise
    finally:
        beside.join()


def _await_quiet(database: Database, driver: "Driver", planned: Sequence[Planned]) -> None:
    """Return when all is settled, or when the last flow is late for good."""
    until = time.monotonic() + GRACE_S + max(flow.outcome.takes_s for flow in planned)
    while time.monotonic() < until:
        if driver.has_started_all and database.rows(STANDING)[0]["pending"] == 0:
            return
        time.sleep(LOOK_S)


@contextmanager
def _progress(began: float, database: Database, driver: "Driver", lanes: Sequence[Lane]) -> Iterator[None]:
    """Print a line every few seconds."""
    done = threading.Event()

    def show() -> None:
        while not done.wait(PROGRESS_EVERY_S):
            standing = database.rows(STANDING)[0]
            faults = sorted((fault for lane in lanes for fault in lane.injected), key=lambda each: each.ended_at)
            last = f", the last: {faults[-1].kind}, {faults[-1].what}" if faults else ""
            print(
                f"{time.monotonic() - began:>5.0f} s  {standing['settled']} of {standing['begun']} flows settled, "
                f"{driver.started - standing['begun']} on their way; {len(faults)} faults{last}",
                flush=True,
            )

    thread = threading.Thread(target=show, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
