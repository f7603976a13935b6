"""The API, asked as an ASGI server would; promises are settled by hand, no worker runs."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpResponse
from django.test import AsyncClient

from flows import operations
from flows.engine.decision import Rejected, Resolved
from flows.store import claims, outcomes
from flows.store.claims import Holder, ReadyRef
from flows.store.outcomes import Outcome

Ask = Callable[..., HttpResponse]


@pytest.fixture
def messages(queue_length: Callable[[str], int]) -> Iterator[Callable[[str], int]]:
    """How many messages wait in a queue once all is sent: no answer waits for that, so it may come in the next test."""

    def count(group: str) -> int:
        operations._sender.submit(int).result(timeout=20)
        return queue_length(group)

    yield count
    count("any")


@pytest.fixture
def ask(transactional_db: None, messages: object) -> Ask:
    """Send a request; errors come back as answers."""
    client = AsyncClient(raise_request_exception=False)

    def ask(method: str, path: str, data: bytes = b"", content_type: str = "", **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def send() -> Any:
            return await client.generic(method, path, data, content_type, headers=named)

        return async_to_sync(send)()

    return ask


@pytest.fixture
def settle(holder: Holder) -> Callable[..., None]:
    """Run the attempt of a started foo: it resolves to ``value``, or is rejected with ``error``."""

    def settle(promise_id: str, value: str = "3", error: dict[str, Any] | None = None) -> None:
        claim, _ = claims.claim_named(ReadyRef(id=promise_id, group="service-a", function="foo"), holder)
        assert claim is not None
        decision = Rejected(error=error, exception=ValueError()) if error else Resolved(value=value)
        assert outcomes.commit([Outcome(claim=claim, decision=decision)])

    return settle
