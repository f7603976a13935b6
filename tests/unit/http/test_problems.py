import json
import logging
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.test import AsyncRequestFactory, RequestFactory

from flows import (
    InvalidInputError,
    MisuseError,
    PromiseCanceled,
    PromiseConflict,
    PromiseNotFound,
    PromiseRejected,
    PromiseTimedOut,
    ResultTimeout,
    UnknownFunctionError,
)
from flows.http import problem_types
from flows.http.problems import ProblemMiddleware, problem_of

INNER = {"type": "KeyError", "message": "'x'", "traceback": "File …", "cause": None}
STORED = {"type": "ValueError", "message": "no", "traceback": "File …", "cause": INNER}
REQUEST = RequestFactory().get("/pfad/ä b")


def problem(error):
    response = problem_of(REQUEST, error)
    assert response is not None
    return response


def body(response):
    assert response["Content-Type"] == "application/problem+json"
    members = json.loads(response.content)
    assert members["status"] == response.status_code
    assert all(members[name] for name in ("type", "title", "detail", "instance"))
    return members


@pytest.mark.parametrize(
    ("error", "slug", "status"),
    [
        (InvalidInputError("id", "must be short"), "invalid-input", 400),
        (UnknownFunctionError("function", "is unknown"), "invalid-input", 400),
        (PromiseConflict(), "promise-conflict", 422),
        (PromiseNotFound(), "promise-not-found", 404),
        (PromiseRejected("p", STORED), "promise-rejected", 500),
        (PromiseTimedOut("p"), "promise-timed-out", 504),
        (PromiseCanceled("p"), "promise-canceled", 410),
        (ResultTimeout(), "still-pending", 503),
        (OperationalError(), "database-away", 503),
        (InterfaceError(), "database-away", 503),
        (psycopg.OperationalError(), "database-away", 503),
        (RequestDataTooBig(), "body-too-large", 413),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, Exception) else str(value),
)
def test_each_error_has_its_problem(error, slug, status):
    response = problem(error)
    members = body(response)
    assert (members["type"], response.status_code) == (f"/problems/{slug}", status)
    assert ("Retry-After" in response) == (status == 503)


def test_an_error_of_the_programmer_is_left_to_django():
    assert problem_of(REQUEST, MisuseError()) is None
    assert problem_of(REQUEST, ZeroDivisionError()) is None


def test_bad_input_names_the_field_and_the_rule():
    members = body(problem(InvalidInputError("id", "must be short")))
    assert (members["field"], members["rule"], members["detail"]) == ("id", "must be short", "id: must be short")
    assert members["instance"] == "/pfad/%C3%A4%20b"


def test_a_rejection_shows_the_error_and_its_cause_but_no_traceback():
    response = problem(PromiseRejected("p", STORED))
    members = body(response)
    inner = {"type": "KeyError", "message": "'x'", "cause": None}
    assert members["error"] == {"type": "ValueError", "message": "no", "cause": inner}
    assert members["promise_id"] == "p"
    assert b"File" not in response.content


def test_what_the_database_said_is_logged_not_shown(caplog):
    with caplog.at_level(logging.WARNING, "flows"):
        response = problem(OperationalError("host 10.0.0.7 refused"))
    assert "10.0.0.7" in caplog.text
    assert b"10.0.0.7" not in response.content


def test_types_are_named_by_addresses_that_never_change():
    assert {each.uri for each in problem_types.ALL.values()} >= {"/problems/invalid-input", "/problems/not-ready"}
    assert all(each.title and each.explanation for each in problem_types.ALL.values())


def answered(response):
    return ProblemMiddleware(lambda request: response)(RequestFactory().get("/x"))


@pytest.mark.parametrize("status", [400, 403, 404, 413, 500, 599])
def test_an_html_error_page_becomes_a_problem(status):
    members = body(answered(HttpResponse("<h1>Error</h1>", status=status)))
    assert (members["type"], members["status"]) == ("about:blank", status)


def test_a_method_that_is_not_allowed_keeps_the_list_of_those_that_are():
    response = answered(HttpResponseNotAllowed(["POST"]))
    assert (body(response)["status"], response["Allow"]) == (405, "POST")


def test_errors_that_a_view_answers_in_json_stay_as_they_are():
    assert json.loads(answered(JsonResponse({"mine": 1}, status=404)).content) == {"mine": 1}


def test_what_is_no_error_passes():
    assert answered(HttpResponse("<h1>Fine</h1>")).content == b"<h1>Fine</h1>"


def test_an_async_chain_stays_async():
    async def missing(request):
        return HttpResponse(status=404)

    middleware: Any = ProblemMiddleware(missing)
    response = async_to_sync(middleware)(AsyncRequestFactory().get("/x"))
    assert body(response)["status"] == 404


def test_what_a_view_raises_is_answered_unless_it_is_django_s():
    middleware = ProblemMiddleware(HttpResponse)
    assert body(middleware.process_exception(REQUEST, PromiseNotFound()))["status"] == 404
    assert middleware.process_exception(REQUEST, Http404()) is None
