from functools import partialmethod

import pytest

from tests.unit.engine.harness import Flow


@pytest.fixture(autouse=True, params=[False, True], ids=["replayed", "open"])
def stays_open(request, monkeypatch):
    """Run each test with attempts that replay, and with such that go on from where the one before waits."""
    monkeypatch.setattr(Flow, "__init__", partialmethod(Flow.__init__, stays_open=request.param))
    return request.param
