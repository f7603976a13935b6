import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError

from flows.domain.promise import Kind
from flows.engine.decision import Failed
from flows.http import views
from flows.store import outcomes, promises
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, resolve, suspend

INNER = {"type": "KeyError", "message": "'x'", "traceback": "File inner", "cause": None}
ERROR = {"type": "ValueError", "message": "no", "traceback": "File outer", "cause": INNER}


def get(ask, promise_id):
    return json.loads(ask("GET", f"/promises/{promise_id}").content)


def fail(claim):
    failed = Failed(error=ERROR, exception=ValueError(), delay=timedelta(0), failures=claim.invocation.failures + 1)
    assert outcomes.commit([Outcome(claim=claim, decision=failed)])


def test_a_promise_shows_what_is_known_of_it(ask, start, claim):
    start("a/b:c@1", {"b": 1, "a": 1.0})
    resolve(claim("a/b:c@1"), '{"z":1,"y":"ä"}')
    promise = get(ask, "a/b:c@1")
    assert list(promise["args"][0].items()) == [("b", 1), ("a", 1.0)]
    assert list(promise["value"].items()) == [("z", 1), ("y", "ä")]
    assert (promise["state"], promise["parent"], promise["root"], promise["children"]) == (
        "resolved",
        None,
        "a/b:c@1",
        [],
    )
    (attempt,) = promise["attempts"]
    assert (attempt["fence"], attempt["node"], attempt["outcome"]) == (1, "node@test", "resolved")


def test_times_are_moments_with_an_offset(ask, start):
    start()
    promise = get(ask, "p")
    created_at, deadline_at = (datetime.fromisoformat(promise[name]) for name in ("created_at", "deadline_at"))
    assert abs((datetime.now(UTC) - created_at).total_seconds()) < 60
    assert round((deadline_at - created_at).total_seconds()) == 3600
    assert promise["settled_at"] is None


def test_children_are_listed_in_call_order_up_to_a_bound(ask, start, claim, monkeypatch):
    start()
    parent = claim()
    suspend(parent, call(parent, 0), call(parent, 1, Kind.RFI), call(parent, 2, Kind.DETACHED))
    promise = get(ask, "p")
    assert (promise["children"], promise["children_truncated"]) == (["p.0", "p.1", "p.2"], False)
    monkeypatch.setattr(views, "MAX_CHILDREN", 2)
    promise = get(ask, "p")
    assert (promise["children"], promise["children_truncated"]) == (["p.0", "p.1"], True)
    child = get(ask, "p.0")
    assert (child["parent"], child["root"], child["kind"]) == ("p", "p", "rpc")


def test_the_last_attempts_are_listed_up_to_a_bound(ask, start, claim, monkeypatch):
    start()
    for _ in range(3):
        fail(claim())
    monkeypatch.setattr(views, "MAX_ATTEMPTS", 2)
    promise = get(ask, "p")
    assert ([attempt["fence"] for attempt in promise["attempts"]], promise["attempts_truncated"]) == ([2, 3], True)


def test_errors_are_shown_without_tracebacks(ask, start, claim):
    start()
    fail(claim())
    response = ask("GET", "/promises/p")
    promise = json.loads(response.content)
    shown = {"type": "ValueError", "message": "no", "cause": {"type": "KeyError", "message": "'x'", "cause": None}}
    assert (promise["state"], promise["error"], promise["attempts"][0]["error"]) == ("pending", shown, shown)
    assert b"File" not in response.content


@pytest.mark.parametrize("promise_id", ["nobody", "x" * 1001, "%00", "a%00b", "ä", "p/", "/", "..;/"])
def test_no_promise_is_a_problem(ask, start, promise_id):
    start()
    response = ask("GET", f"/promises/{promise_id}")
    assert (response.status_code, json.loads(response.content)["type"]) == (404, "/problems/promise-not-found")


def test_a_database_that_is_away_is_a_problem_that_says_when_to_come_back(ask, monkeypatch):
    def get(promise_id):
        raise OperationalError("connection refused")

    monkeypatch.setattr(promises, "get", get)
    response = ask("GET", "/promises/p")
    assert (response.status_code, response["Retry-After"]) == (503, "2")
    assert json.loads(response.content)["type"] == "/problems/database-away"


def test_the_type_of_a_problem_is_explained_at_its_address(ask):
    address = json.loads(ask("GET", "/promises/nobody").content)["type"]
    explained = json.loads(ask("GET", address).content)
    assert (explained["type"], explained["status"]) == (address, 404)
    assert explained["explanation"]
    assert ask("GET", "/problems/nonsense").status_code == 404
