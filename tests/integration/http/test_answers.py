import json
import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

import flows
from flows.handle import Handle
from flows.store import sql

ERROR = {"type": "ValueError", "message": "no", "traceback": "File …", "cause": None}


@pytest.fixture
def started(ask):
    assert ask("POST", "/await-chain", Prefer="respond-async").status_code == 202
    return "await-chain"


def test_an_answer_that_is_not_there_in_time_says_where_it_will_be(ask):
    response = ask("POST", "/await-chain", Prefer="wait=1", Idempotency_Key="k/1")
    assert (response.status_code, response["Preference-Applied"]) == (202, "wait=1")
    assert response["Location"] == "/promises/await-chain:k/1"
    assert response["Retry-After"]
    assert json.loads(response.content) == {"id": "await-chain:k/1", "state": "pending"}
    assert json.loads(ask("GET", response["Location"]).content)["state"] == "pending"


@pytest.mark.parametrize("prefer", ["respond-async", "wait=0", "wait=9", ""])
def test_what_has_settled_is_answered_at_once_however_long_the_client_waits(ask, started, settle, prefer):
    settle(started)
    response = ask("POST", "/await-chain", Prefer=prefer)
    assert (response.status_code, json.loads(response.content)) == (200, {"message": 3})


def test_who_waits_is_answered_when_the_promise_settles(ask, started, settle):
    def settle_and_leave():
        settle(started)
        connection.close()

    settling = threading.Timer(0.2, settle_and_leave)
    settling.start()
    response = ask("POST", "/await-chain", Prefer="wait=20")
    settling.join()
    assert json.loads(response.content) == {"message": 3}


@pytest.mark.parametrize("prefer", ["respond-async", "wait=9"])
def test_each_other_outcome_is_a_problem(ask, started, settle, prefer):
    settle(started, error=ERROR)
    assert_problem(ask("POST", "/await-chain", Prefer=prefer), 500, "promise-rejected")


def test_a_canceled_promise_is_gone(ask, started):
    flows.cancel(started)
    assert_problem(ask("POST", "/await-chain"), 410, "promise-canceled")


def test_a_promise_past_its_deadline_has_timed_out(ask, started):
    sql.rows("UPDATE flows_promise SET deadline_at = now() - interval '1 second'")
    assert_problem(ask("POST", "/await-chain"), 504, "promise-timed-out")


def test_who_waits_holds_no_database_connection(ask, monkeypatch):
    held = []

    async def aresult(handle: Handle[Any], timeout: float) -> Any:
        held.append(await sync_to_async(lambda: connection.connection)())

    monkeypatch.setattr(Handle, "aresult", aresult)
    connection.close()
    assert ask("POST", "/await-chain").status_code == 200
    assert held == [None]


def assert_problem(response, status, slug):
    problem = json.loads(response.content)
    assert (response.status_code, problem["type"]) == (status, f"/problems/{slug}")
    assert problem["promise_id"] == "await-chain"
