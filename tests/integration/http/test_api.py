import json

import pytest

import flows
from flows.models import Promise
from tests.integration.conftest import resolve


@pytest.fixture
def client(transactional_db, queue_length, client):
    return client


def assert_problem(response, status, **members):
    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")
    problem = json.loads(response.content)
    assert problem["status"] == status
    assert problem["detail"]
    for name, value in members.items():
        assert problem[name] == value


def test_a_route_that_waits_in_vain_says_where_the_promise_is(client):
    response = client.post(
        "/await-chain", content_type="application/json", headers={"Prefer": "wait=0", "Idempotency-Key": "k"}
    )
    assert response.status_code == 202
    assert response["Location"] == "/promises/await-chain:k"
    assert response["Retry-After"]
    assert client.get(response["Location"]).json()["state"] == "pending"


@pytest.mark.parametrize(
    ("headers", "body", "status", "field"),
    [
        ({"Idempotency-Key": "a b"}, b"", 400, "Idempotency-Key"),
        ({"Prefer": "wait=soon"}, b"", 400, "Prefer"),
        ({}, b"[1]", 400, "body"),
    ],
)
@pytest.mark.parametrize("route", ["/await-chain", "/detached-chain", "/fan-out-workflow"])
def test_bad_input_is_a_problem_and_writes_nothing(client, route, headers, body, status, field):
    response = client.post(route, body, content_type="application/json", headers=headers)
    assert_problem(response, status, field=field, instance=route)
    assert not Promise.objects.exists()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/await-chain", 405),
        ("get", "/nowhere", 404),
        ("get", "/promises/nobody", 404),
        ("post", "/readyz", 405),
    ],
)
def test_every_error_is_a_problem(client, method, path, status):
    assert_problem(getattr(client, method)(path), status, instance=path)


def test_a_body_that_is_too_large_or_no_json_is_a_problem(client):
    assert_problem(client.post("/await-chain", b"x" * 2000, content_type="application/json"), 413)
    assert_problem(client.post("/await-chain", b"x=1", content_type="text/plain"), 415)


def test_the_id_of_another_call_is_a_conflict(client):
    flows.begin_rpc("await-chain", "qux", 1, target="service-d")
    assert_problem(client.post("/await-chain", content_type="application/json"), 422)


def test_the_admin_keeps_its_pages(client):
    response = client.get("/admin/nowhere/")
    assert response["Content-Type"].startswith("text/html")


def test_health(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "postgresql": "ok", "redis": "ok"}


def test_a_promise_shows_what_is_known_of_it(start, claim, client):
    start("p", {"b": 1, "a": 1.0})
    resolve(claim(), '{"z":1,"y":2}')
    promise = client.get("/promises/p").json()
    assert list(promise["args"][0].items()) == [("b", 1), ("a", 1.0)]
    assert list(promise["value"]) == ["z", "y"]
    assert (promise["state"], promise["parent"], promise["root"], promise["children"]) == ("resolved", None, "p", [])
    (attempt,) = promise["attempts"]
    assert (attempt["fence"], attempt["node"], attempt["outcome"]) == (1, "node@test", "resolved")
