"""W4: from the death of a node, with all its processes, to the moment at which its function is entered again."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg

from bench.installation import Installation, Setting
from bench.recovery import await_condition
from bench.rows import MS, Row, median_and_range
from bench.run import Run
from bench.systems.flows import FLOWS
from local.slot import SHORT_LIFE_S

WORKLOAD = "W4"
NAP_MS = 1000
TIMES = 6

RUNNING = """
SELECT p.fence, p.session, n.pid FROM flows_promise p JOIN flows_node n ON n.id = p.node_id
WHERE p.function = 'nap' AND p.phase = 'claimed'
"""


def measure_killed(run: Run) -> Iterator[Row]:
    """Kill the node that runs a function, so many times, while another one serves the same group."""
    if not run.wants(WORKLOAD) or FLOWS not in run.systems:
        return
    setting = Setting(counts={"worker-a": 2})
    with run.installed([FLOWS], setting) as installations, ThreadPoolExecutor(1) as pool:
        flows = installations["flows"]
        with flows.turn():
            seconds = [_interrupt(run, flows, pool) for _ in range(run.reps or TIMES)]
    median, spread = median_and_range([each * MS for each in seconds])
    yield Row(
        workload=WORKLOAD,
        title="a node is killed: until its function is entered again",
        system=FLOWS.name,
        setting="prefork, 2 nodes",
        p50_ms=median,
        n=len(seconds),
        spread=spread,
        note="plain Celery: `visibility_timeout`, an hour by default",
    )


def _interrupt(run: Run, flows: Installation, pool: ThreadPoolExecutor) -> float:
    flows.stack.wait_ready()
    # A stack gives up what dies young three times in a row.
    await_condition(lambda: all(age > SHORT_LIFE_S for age in flows.stack.ages_s("worker-a")))
    ended = pool.submit(flows.ask, "one_at_a_time", "nap", (NAP_MS,), expected=1)
    with psycopg.connect(run.servers.database_url, autocommit=True) as database:

        def running() -> tuple[int, ...] | None:
            return database.execute(RUNNING).fetchone()

        await_condition(running)
        fence, session, node = running() or (0, 0, 0)
        os.killpg(node, signal.SIGKILL)
        seconds = await_condition(lambda: (now := running()) is not None and now[0] > fence and now[1] != session)
    ended.result()
    return seconds
