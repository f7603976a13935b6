"""Real processes: the gateway, nine workers and Flower on real servers, started once and used as their users do."""

import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import psycopg
import pytest
from celery import Celery
from django import db
from psycopg.rows import dict_row

from local.servers import Servers
from local.stack import Stack
from tests.conftest import NewServers
from tests.waiting import wait_until

Query = Callable[..., list[dict[str, Any]]]

LOG_END = 3000  # characters


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what the processes that it used have logged last."""
    report = yield
    if report.failed:
        for stack in (used for used in item.funcargs.values() if isinstance(used, Stack)):
            for name, log in stack.logs().items():
                report.sections.append((f"log of {name}", log.read_text(errors="replace")[-LOG_END:]))
    return report


@pytest.fixture(scope="session")
def stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All processes, two workers for service-b."""
    stack = Stack(servers.environ, folder=tmp_path_factory.mktemp("stack"), counts={"worker-b": 2})
    stack.migrate()
    with stack:
        yield stack.wait_ready()


@pytest.fixture(scope="session")
def environ(servers: Servers, django_db_setup: None) -> dict[str, str]:
    """What workers see that share the tests' own database and broker."""
    name = db.connection.settings_dict["NAME"]
    return {
        "DATABASE_URL": servers.database_url.rpartition("/")[0] + f"/{name}",
        "REDIS_URL": servers.redis_url.replace("/0", "/1"),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
    }


@pytest.fixture
def gateway(stack: Stack) -> Iterator[httpx.Client]:
    """A client of the gateway."""
    with httpx.Client(base_url=stack.gateway_url, timeout=60) as client:
        yield client


@pytest.fixture
def query(servers: Servers) -> Iterator[Query]:
    """Read the stack's database."""
    with psycopg.connect(servers.database_url, autocommit=True, row_factory=dict_row) as connection:

        def query(statement: Any, **params: Any) -> list[dict[str, Any]]:
            return connection.execute(statement, params).fetchall()

        yield query


@pytest.fixture
def publisher(servers: Servers) -> Iterator[Celery]:
    """A Celery app that knows no task: sends any message to any queue."""
    with Celery("publisher", broker=servers.redis_url, backend=None, set_as_current=False) as app:
        yield app


@pytest.fixture(scope="session")
def key() -> Callable[[], str]:
    """Make an Idempotency-Key that no other test has."""
    counter = iter(range(1_000_000))
    return lambda: f"t{next(counter)}"


@pytest.fixture(scope="session")
def fragile_servers(new_servers: NewServers) -> Iterator[Servers]:
    """PostgreSQL and Redis to kill, restart and freeze, apart from those on which everybody else depends."""
    with new_servers("fragile-servers") as started:
        yield started


@pytest.fixture(scope="session")
def fragile_stack(fragile_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The gateway and two workers for each group of the await chain, slow enough to be busy when a fault comes."""
    workers = ["worker-a", "worker-b", "worker-c"]
    stack = Stack(
        {
            **fragile_servers.environ,
            "DJANGO_SETTINGS_MODULE": "gateway_project.settings",  # pytest's own would be inherited
            "FLOWS_SLOW_MOTION_S": "0.2",
        },
        folder=tmp_path_factory.mktemp("fragile"),
        only={"gateway", *workers},
        counts=dict.fromkeys(workers, 2),
    )
    stack.migrate()
    with stack:
        yield stack.wait_ready()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer to one request for an await-chain; ``began_s`` is monotonic."""

    key: str
    status: int
    message: object
    has_retry_after: bool
    began_s: float
    took_s: float


class Load:
    """Clients that ask for await-chains without a pause, each for one until it is answered 200, then for the next."""

    def __init__(self, url: str, name: str, *, clients: int = 8, wait_s: int = 10) -> None:
        self.answers: list[Answer] = []
        self.name = name
        self._url = url
        self._clients = clients
        self._prefer = f"wait={wait_s}"
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self._clients)
        self._running: list[Future[None]] = [self._pool.submit(self._ask, client) for client in range(self._clients)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stopping.set()
        self._pool.shutdown()
        for client in self._running if error is None else ():
            client.result()

    @property
    def slowest_s(self) -> float:
        return max(answer.took_s for answer in self.answers)

    def answered(self, *statuses: int) -> list[Answer]:
        return [answer for answer in self.answers if answer.status in statuses]

    def _ask(self, client: int) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as gateway:
            for number in itertools.count():
                if self._stopping.is_set():
                    return
                self._ask_for(gateway, f"{self.name}-{client}-{number}")

    def _ask_for(self, gateway: httpx.Client, key: str) -> None:
        deadline = time.monotonic() + 45
        while self._ask_once(gateway, key) != httpx.codes.OK:
            assert time.monotonic() < deadline, f"await-chain:{key} is not answered 200"
            time.sleep(0.1)

    def _ask_once(self, gateway: httpx.Client, key: str) -> int:
        began_s = time.monotonic()
        answer = gateway.post("/await-chain", headers={"Idempotency-Key": key, "Prefer": self._prefer})
        self.answers.append(
            Answer(
                key=key,
                status=answer.status_code,
                message=answer.json().get("message"),
                has_retry_after="Retry-After" in answer.headers,
                began_s=began_s,
                took_s=time.monotonic() - began_s,
            )
        )
        return answer.status_code


# From the end of a fault to the answer to a chain that began then: 2 s are promised until work goes on, a chain takes
# 1 s in slow motion and another one in the queues behind the load, and the machine may be busy.
BACK_WITHIN_S = 6
BUSY = "SELECT count(*) AS attempts FROM flows_promise WHERE phase = 'claimed'"
NOW = "SELECT clock_timestamp() AS at"
WORKED_SINCE = """
SELECT DISTINCT n.pid FROM flows_attempt a JOIN flows_node n ON n.id = a.node_id WHERE a.started_at > %(since)s
"""
OF_LOAD = "FROM flows_promise p LEFT JOIN flows_attempt a ON a.promise_id = p.id WHERE p.root_id LIKE %(roots)s"
UNSETTLED = f"SELECT p.id, p.state, p.phase, p.note {OF_LOAD} AND p.state <> 'resolved'"
NOT_IN_THE_PLAN = f"SELECT p.id, a.fence, a.outcome, a.error {OF_LOAD} AND a.outcome NOT IN ('suspended', 'resolved')"
COUNTS = f"""
SELECT count(DISTINCT p.root_id) AS chains, count(*) FILTER (WHERE a.outcome = 'resolved') AS resolved,
    count(*) FILTER (WHERE a.outcome = 'suspended') AS suspended {OF_LOAD}
"""


@pytest.fixture
def under_load(
    fragile_stack: Stack, fragile_servers: Servers, key: Callable[[], str]
) -> Callable[..., AbstractContextManager[Load]]:
    """Run a block while all workers are busy; afterwards each works, nothing was lost or done twice, nothing hung.

    ``refusals`` are the statuses besides 200 that clients may have seen meanwhile. Unless ``restarts``, the main
    processes of the workers are the same as before.
    """

    def query(statement: Any, **params: Any) -> list[dict[str, Any]]:
        with psycopg.connect(fragile_servers.database_url, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(statement, params).fetchall()

    def pids() -> dict[str, list[int]]:
        return {name: fragile_stack.pids(name) for name in fragile_stack.names if name != "gateway"}

    @contextmanager
    def under_load(*refusals: int, wait_s: int = 10, slack_s: float = 1, restarts: bool = False) -> Iterator[Load]:
        before = pids()
        with Load(fragile_stack.gateway_url, key(), wait_s=wait_s) as load:
            wait_until(lambda: query(BUSY)[0]["attempts"] >= 5)
            yield load
            since = query(NOW)[0]["at"]
            workers = {pid for each in pids().values() for pid in each}
            wait_until(lambda: {row["pid"] for row in query(WORKED_SINCE, since=since)} >= workers, BACK_WITHIN_S)
        assert {answer.message for answer in load.answered(httpx.codes.OK)} == {3}
        assert {answer.status for answer in load.answers} <= {httpx.codes.OK, *refusals}
        assert all(answer.has_retry_after for answer in load.answers if answer.status != httpx.codes.OK)
        assert load.slowest_s < wait_s + slack_s
        roots = f"await-chain:{load.name}-%"
        assert query(UNSETTLED, roots=roots) == []
        assert query(NOT_IN_THE_PLAN, roots=roots) == []
        [written] = query(COUNTS, roots=roots)
        assert (written["resolved"], written["suspended"]) == (3 * written["chains"], 2 * written["chains"])
        assert restarts or pids() == before

    return under_load


@pytest.fixture
def is_back(fragile_stack: Stack, key: Callable[[], str]) -> Callable[[], None]:
    """Ask for a new chain; fail if it is not answered soon. Called right after a fault is over."""

    def is_back() -> None:
        name, began_s = key(), time.monotonic()
        with httpx.Client(base_url=fragile_stack.gateway_url, timeout=60) as gateway:

            def is_answered() -> bool:
                answer = gateway.post("/await-chain", headers={"Idempotency-Key": name})
                return answer.status_code == httpx.codes.OK and answer.json()["message"] == 3

            wait_until(is_answered, within_s=BACK_WITHIN_S)
        assert time.monotonic() - began_s < BACK_WITHIN_S

    return is_back
