"""Promises on a real PostgreSQL, with real commits: other threads and other connections must see them."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.db import connection

from flows import canvas, pollers
from flows.domain import values
from flows.domain.promise import Kind
from flows.engine.decision import Call, Resolved, Suspended
from flows.store import claims, nodes, outcomes, promises, sql
from flows.store.claims import Claim, Holder, ReadyRef
from flows.store.nodes import NodeInfo
from flows.store.outcomes import Committed, Outcome
from flows.store.promises import Start


def leaving(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the function in a thread that ends then: what it leaves open is found by whatever test runs later."""
    try:
        return function(*args, **kwargs)
    finally:
        pollers.leave()
        connection.close()


@pytest.fixture
def holder(transactional_db: None) -> Holder:
    """A node whose process is alive: this connection holds its session lock."""
    info = NodeInfo(name="node@test", groups=("g",), hostname="test", pid=1)
    node = Holder(node_id=nodes.register(info), session=1)
    assert nodes.hold_session_lock(node.node_id, node.session)
    return node


@pytest.fixture
def start(transactional_db: None) -> Callable[..., str]:
    """Start a promise of group g, function f."""

    def start(promise_id: str = "p", *args: object, timeout: timedelta = timedelta(hours=1)) -> str:
        text, digest = values.encode(list(args), "args"), values.digest(args)
        promises.start(Start(id=promise_id, group="g", function="f", args=text, digest=digest, timeout=timeout))
        return promise_id

    return start


@pytest.fixture
def claim(holder: Holder) -> Callable[..., Claim]:
    """Claim a promise that must be claimable."""

    def claim(promise_id: str = "p", function: str = "f") -> Claim:
        taken, _ = claims.claim_named(ReadyRef(id=promise_id, group="g", function=function), holder)
        assert taken is not None
        return taken

    return claim


@pytest.fixture
def queue_length(broker: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], int]]:
    """How many messages wait in a queue of the real broker, which is not known to have been away."""
    for module in (canvas, pollers):
        monkeypatch.setattr(module, "_away_until", 0.0)
    with current_app.connection_for_write() as connection:
        client = connection.default_channel.client  # type: ignore[attr-defined]  # of the Redis transport
        client.flushdb()
        yield client.llen
        client.flushdb()


def call(parent: Claim, position: int, kind: Kind = Kind.RPC, **fields: Any) -> Call:
    """A new call that an attempt makes."""
    given: dict[str, Any] = {"group": "g", "function": "child", "args": "[]", "digest": values.digest([])} | fields
    return Call(id=f"{parent.invocation.id}.{position}", position=position, kind=kind, **given)


def resolve(claim: Claim, value: str = "1") -> Committed | None:
    """Commit that the attempt resolved its promise."""
    return outcomes.commit([Outcome(claim=claim, decision=Resolved(value=value))]).get(claim.invocation.id)


def suspend(claim: Claim, *calls: Call, awaits: tuple[str, ...] | None = None) -> Committed | None:
    """Commit that the attempt was suspended on the calls that it made."""
    decision = Suspended(awaits=awaits if awaits is not None else tuple(each.id for each in calls))
    return outcomes.commit([Outcome(claim=claim, calls=calls, decision=decision)]).get(claim.invocation.id)


def expire_lease(holder: Holder) -> None:
    """Let the node's lease, and that of its claims, end, as if its host had been frozen for long enough."""
    sql.rows("UPDATE flows_node SET lease_until = now() - interval '1 second' WHERE id = %(id)s", id=holder.node_id)
    sql.rows("UPDATE flows_promise SET claimed_at = claimed_at - interval '1 hour' WHERE phase = 'claimed'")
