import importlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from flows import tracing
from flows.engine.decision import Invocation, Resolved

STORED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(params=["no provider", "no opentelemetry"])
def untraced(request: pytest.FixtureRequest) -> Iterator[None]:
    """A process that does not trace."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if request.param == "no opentelemetry":
            monkeypatch.setitem(sys.modules, "opentelemetry", None)
            monkeypatch.delattr(tracing, "api")
            importlib.reload(tracing)
        yield
    importlib.reload(tracing)


@pytest.fixture
def invocation() -> Invocation:
    return Invocation(
        id="p",
        root_id="p",
        group="g",
        addressee="",
        function="f",
        version=1,
        args=[],
        retry=None,
        deadline_at=datetime.now(UTC),
        failures=0,
        attempt=1,
        checkpoints=(),
    )


@pytest.mark.usefixtures("untraced")
def test_without_a_provider_an_attempt_has_no_span(invocation):
    with tracing.attempt(invocation, STORED) as span:
        assert (span.trace, tracing.carrier()) == (None, None)
        span.decided(Resolved(value="1"))
        span.fenced()


@pytest.mark.usefixtures("untraced")
def test_without_a_provider_a_flow_that_begins_has_none():
    with tracing.begin("f"):
        assert tracing.carrier() is None
