"""Real processes: the gateway, nine workers and Flower on real servers, started once and used as their users do."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from celery import Celery
from psycopg.rows import dict_row

from local.servers import Servers
from local.stack import Stack

Query = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All processes, two workers for service-b."""
    stack = Stack(servers.environ, folder=tmp_path_factory.mktemp("stack"), counts={"worker-b": 2})
    stack.migrate()
    with stack:
        yield stack.wait_ready()


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
