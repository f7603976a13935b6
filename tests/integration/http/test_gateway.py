import json

import pytest

import flows
from flows.models import Promise

ROUTES = ["/await-chain", "/detached-chain", "/fan-out-workflow"]


@pytest.mark.parametrize(
    ("route", "function", "args", "group"),
    [
        ("await-chain", "foo", ["foo"], "service-a"),
        ("detached-chain", "qux", [1], "service-d"),
        ("fan-out-workflow", "zim", [1], "service-g"),
    ],
)
def test_each_route_starts_its_flow_once(ask, messages, route, function, args, group):
    for _ in range(2):
        ask("POST", f"/{route}", Prefer="wait=0")
    promise = Promise.objects.get()
    assert (promise.id, promise.function, promise.args, promise.group) == (route, function, args, group)
    assert messages(group) == 1


def test_the_detached_chain_does_not_wait(ask):
    response = ask("POST", "/detached-chain", Idempotency_Key='"k"')
    assert (response.status_code, json.loads(response.content)) == (200, {"message": "detached-chain started"})
    assert Promise.objects.get().id == "detached-chain:k"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("headers", "body", "field"),
    [
        ({"Idempotency_Key": "a b"}, b"", "Idempotency-Key"),
        ({"Idempotency_Key": ""}, b"", "Idempotency-Key"),
        ({"Prefer": "wait=soon"}, b"", "Prefer"),
        ({}, b"[1]", "body"),
        ({}, b"{", "body"),
    ],
)
def test_bad_input_is_a_problem_and_writes_nothing(ask, route, headers, body, field):
    response = ask("POST", route, body, "application/json", **headers)
    assert_problem(response, 400, instance=route, field=field)
    assert not Promise.objects.exists()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [(b"x" * 2000, "application/json", 413), (b"x=1", "application/x-www-form-urlencoded", 415)],
)
def test_a_body_of_another_size_or_kind_is_a_problem_and_writes_nothing(ask, route, body, content_type, status):
    assert_problem(ask("POST", route, body, content_type), status)
    assert not Promise.objects.exists()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_routes_take_post_only(ask, route, method):
    response = ask(method, route)
    assert_problem(response, 405, type="about:blank")
    assert response["Allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/nowhere", "/await-chain/", "/static/nothing.css"])
def test_an_unknown_address_is_a_problem(ask, path):
    assert_problem(ask("GET", path), 404, instance=path)


def test_an_unknown_host_is_a_problem(ask):
    assert_problem(ask("GET", "/healthz", Host="elsewhere.example"), 400)


def test_the_id_of_another_call_is_a_conflict_and_changes_nothing(ask):
    flows.begin_rpc("await-chain", "qux", 1, target="service-d")
    assert_problem(ask("POST", "/await-chain"), 422, type="/problems/promise-conflict")
    assert Promise.objects.get().function == "qux"


def test_a_fault_of_our_own_is_a_problem_that_tells_nothing(ask, monkeypatch, caplog):
    def start(*args):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("flows.store.promises.start", start)
    response = ask("POST", "/await-chain")
    assert_problem(response, 500, type="about:blank")
    assert b"secret" not in response.content
    assert "a secret" in caplog.text


def test_the_admin_keeps_its_pages(ask):
    assert ask("GET", "/admin/login/")["Content-Type"].startswith("text/html")
    assert ask("GET", "/admin/nowhere/").status_code == 302


def assert_problem(response, status, **members):
    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")
    problem = json.loads(response.content)
    assert problem["status"] == status
    assert problem["detail"]
    assert problem.items() >= members.items()
