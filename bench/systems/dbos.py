"""DBOS: workflows that enqueue workflows of other processes and wait for them, as it comes, and with short polling."""

import importlib.util
import os
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from bench.system import Outcome, Side, System, database_url
from local.servers import Servers

if TYPE_CHECKING:
    from dbos import DBOSClient, WorkflowHandle

QUEUES = {"a", "b", "c"}
LOOK_S = 0.1
START_S = 30.0
DEFAULT_POLL_S, TUNED_POLL_S = 1.0, 0.005
CALLS = ("chain", "fan_out", "calls", "steps")


class Client:
    """A process with a DBOSClient, made as soon as all workers are there."""

    def __init__(self) -> None:
        self._poll_s = float(os.environ["POLL_S"])
        deadline = time.monotonic() + START_S
        while not (client := self._connect()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the workers have not registered their queues within {START_S} s")
            time.sleep(LOOK_S)
        self._client = client

    def _connect(self) -> "DBOSClient | None":
        """Return a client once each worker has registered its queue: then the tables are complete."""
        import dbos

        try:
            client = dbos.DBOSClient(
                system_database_url=os.environ["DBOS_SYSTEM_DATABASE_URL"],
                application_name="bench",
                retry_connection_errors=False,
            )
            names = {queue.name for queue in client.list_queues()}
        except Exception:  # whatever a database that is not complete yet is reported as
            return None
        return client if names == QUEUES else None

    def chain(self) -> Outcome:
        return self._enqueue("foo")

    def fan_out(self, count: int) -> Outcome:
        return self._enqueue("fan_out", count)

    def calls(self, count: int) -> Outcome:
        return self._enqueue("calls", count)

    def steps(self, count: int) -> Outcome:
        return self._enqueue("steps", count)

    def _enqueue(self, workflow: str, *args: int) -> Outcome:
        handle: WorkflowHandle[int] = self._client.enqueue({"workflow_name": workflow, "queue_name": "a"}, *args)
        return partial(handle.get_result, polling_interval_sec=self._poll_s)


def is_installed() -> bool:
    return importlib.util.find_spec("dbos") is not None


def _variables(name: str, poll_s: float, servers: Servers) -> Mapping[str, str]:
    url = urlsplit(database_url(servers, name))._replace(scheme="postgresql")
    return {**servers.environ, "DBOS_SYSTEM_DATABASE_URL": urlunsplit(url), "POLL_S": str(poll_s)}


def _system(name: str, database: str, poll_s: float, does: Mapping[str, str]) -> System:
    return System(
        name=name,
        side=Side(
            name=name, procfile="dbos", client=Client, probe="chain", variables=partial(_variables, database, poll_s)
        ),
        does=does,
        configuration=(
            f"a process for each queue, queues and results polled every {poll_s:g} s, no limit of concurrency; "
            "`DBOS.enqueue_workflow(…).get_result()`, `DBOSClient` in the client"
        ),
    )


# Where each hop waits for two polls of a second, what needs many of them is left to the tuned one.
DBOS = _system("dbos", "dbos", DEFAULT_POLL_S, {"chain": "chain"})
DBOS_TUNED = _system(
    "dbos-tuned", "dbos_tuned", TUNED_POLL_S, {"chains": "chain", **dict(zip(CALLS, CALLS, strict=True))}
)
