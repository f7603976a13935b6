import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from celery import current_app
from django.db import connection

from flows.store import nodes
from flows.store.nodes import NodeInfo
from flows.worker import drain, process
from flows.worker.ledger import Ledger


def end_session() -> None:
    """Have PostgreSQL end the session of this thread's connection."""
    with closing(connection.copy()) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.connection.info.backend_pid])


class Gate:
    """Holds up whoever comes to it until it is ``opened``; ``reached`` tells that somebody has come."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.opened.wait(timeout=20)


@pytest.fixture
def client(broker: None) -> Iterator[Any]:
    """A client of the broker."""
    with current_app.connection_for_write() as opened:
        yield opened.default_channel.client  # type: ignore[attr-defined]  # of the Redis transport


@pytest.fixture
def worker(
    transactional_db: None, queue_length: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Make this process a node, as the bootstep does; return the node's id."""
    node_id = nodes.register(NodeInfo(name="node@test", groups=("service-c",), hostname="test", pid=1))
    connection.close()
    monkeypatch.setattr(process, "_node_id", None)
    monkeypatch.setattr(drain, "_paces", {})
    process.become_node(node_id, "node@test", ("service-c",))
    yield node_id
    process.retire()
    process._flags[process._STOPPING] = 0
    connection.close()


@pytest.fixture
def ledger(queue_length: Callable[[str], int]) -> Ledger:
    return Ledger()


@pytest.fixture
def patient(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger that gives no claim back, however slow the machine is."""
    monkeypatch.setattr("flows.worker.ledger.PATIENCE_S", 60)
    return ledger


@pytest.fixture
def unwatched(patient: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger whose watchdog is busy with something else."""
    monkeypatch.setattr("flows.worker.process.watch", lambda _: None)
    return patient
