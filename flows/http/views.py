"""Promises over HTTP, and the answer of a route that starts a flow."""

from datetime import datetime
from http import HTTPStatus
from typing import Any

from asgiref.sync import sync_to_async
from celery import current_app
from django.db import DatabaseError, InterfaceError
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from flows.domain.errors import ResultTimeout
from flows.domain.promise import Promise
from flows.handle import Handle
from flows.http.problems import RETRY_AFTER_S, HttpProblem
from flows.http.requests import Preference
from flows.store import promises, sql

MAX_CHILDREN = 1000
REDIS_TIMEOUT_S = 1.0


async def answer(handle: Handle, preferred: Preference) -> JsonResponse:
    """Wait for the flow as long as the client prefers: 200 with its value as ``message``, or 202 with its location.

    Raises ``PromiseRejected``, ``PromiseTimedOut`` or ``PromiseCanceled`` as the promise settled.
    """
    try:
        response = JsonResponse({"message": await handle.aresult(preferred.wait_s)})
    except ResultTimeout:
        response = JsonResponse({"id": handle.id, "state": "pending"}, status=HTTPStatus.ACCEPTED)
        response["Location"] = f"/promises/{handle.id}"
        response["Retry-After"] = str(RETRY_AFTER_S)
    if preferred.is_given:
        applied = f"wait={preferred.wait_s:.0f}" if preferred.wait_s else "respond-async"
        response["Preference-Applied"] = applied
    return response


@require_safe
async def promise_detail(request: HttpRequest, promise_id: str) -> JsonResponse:
    """Return one promise."""
    return JsonResponse(await sync_to_async(_promise)(promise_id), json_dumps_params={"ensure_ascii": False})


@require_safe
async def healthz(request: HttpRequest) -> HttpResponse:
    """Say that the process answers."""
    return JsonResponse({"status": "ok"})


@require_safe
async def readyz(request: HttpRequest) -> JsonResponse:
    """Say whether requests can be served: PostgreSQL must be there and migrated.

    Redis is reported and not required: without it flows are started all the same, and sent when it is back.
    """
    reason = await sync_to_async(_database_problem)()
    if reason:
        raise HttpProblem(HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", reason)
    return JsonResponse({"status": "ready", "postgresql": "ok", "redis": await sync_to_async(_redis_state)()})


def _promise(promise_id: str) -> dict[str, Any]:
    promise = promises.get(promise_id)
    children = promises.children(promise_id, MAX_CHILDREN + 1)
    return {
        **_fields(promise),
        "attempts": [_attempt(attempt) for attempt in promises.attempts(promise_id)],
        "children": children[:MAX_CHILDREN],
        "has_more_children": len(children) > MAX_CHILDREN,
    }


def _fields(promise: Promise) -> dict[str, Any]:
    return {
        "id": promise.id,
        "state": promise.state,
        "kind": promise.kind,
        "group": promise.group,
        "function": promise.function,
        "args": promise.args,
        "value": promise.value,
        "error": _error(promise.error),
        "note": promise.note,
        "phase": promise.phase,
        "parent": promise.parent_id,
        "root": promise.root_id,
        "created_at": _time(promise.created_at),
        "deadline_at": _time(promise.deadline_at),
        "settled_at": _time(promise.settled_at),
    }


def _attempt(attempt: dict[str, Any]) -> dict[str, Any]:
    times = {"started_at": _time(attempt["started_at"]), "ended_at": _time(attempt["ended_at"])}
    return {**attempt, "error": _error(attempt["error"]), **times}


def _error(error: dict[str, Any] | None) -> dict[str, Any] | None:
    """Leave the traceback out: it is for the team, in the admin, not for clients."""
    if error is None:
        return None
    return {"type": error["type"], "message": error["message"], "cause": _error(error["cause"])}


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _database_problem() -> str:
    try:
        connection = sql.connection()
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return "PostgreSQL answers, but its schema is older than this code; run manage.py migrate."
    except (DatabaseError, InterfaceError) as error:
        return f"PostgreSQL does not answer: {type(error).__name__}."
    return ""


def _redis_state() -> str:
    try:
        with Redis.from_url(
            current_app.conf.broker_url,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            client.ping()
    except (RedisError, OSError) as error:
        return f"away: {type(error).__name__}"
    return "ok"
