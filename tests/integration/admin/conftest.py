"""Promises as the admin shows them, on a real PostgreSQL."""

import pytest

from flows.engine.decision import Rejected
from flows.store import outcomes
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, suspend

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def a_tree(start, claim):
    """A parent that waits for a call that failed; both hold what would run if it were not escaped."""
    start("p/a_b:c", SCRIPT)
    parent = claim("p/a_b:c")
    suspend(parent, call(parent, 0))
    child = claim("p/a_b:c.0", "child")
    error = {"type": "ValueError", "message": SCRIPT, "traceback": SCRIPT, "cause": None}
    outcomes.commit([Outcome(claim=child, decision=Rejected(error=error, exception=ValueError()))])


@pytest.fixture
def content(admin_client):
    """Get a page as text; it must be there."""

    def content(path: str, **query: str) -> str:
        response = admin_client.get(path, query)
        assert response.status_code == 200
        return str(response.content.decode())

    return content
