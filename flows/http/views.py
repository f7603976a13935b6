"""Promises as JSON, and what the types of problems mean."""

from datetime import datetime
from typing import Any

from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from flows.domain.promise import Promise
from flows.http import problem_types
from flows.http.problems import public_error
from flows.operations import in_thread
from flows.store import promises

MAX_CHILDREN = 1000
MAX_ATTEMPTS = 100


@require_safe
async def promise_detail(request: HttpRequest, promise_id: str) -> JsonResponse:
    """Return one promise, with its first children and its last attempts. Times are as RFC 3339 has them."""
    return JsonResponse(await in_thread(_promise)(promise_id), json_dumps_params={"ensure_ascii": False})


@require_safe
async def problem_type(request: HttpRequest, slug: str) -> JsonResponse:
    """Explain one type of problem."""
    found = problem_types.ALL.get(slug)
    if found is None:
        raise Http404
    return JsonResponse(
        {"type": found.uri, "title": found.title, "status": found.status, "explanation": found.explanation}
    )


def _promise(promise_id: str) -> dict[str, Any]:
    promise = promises.get(promise_id)
    attempts = promises.attempts(promise_id, MAX_ATTEMPTS + 1)
    children = promises.children(promise_id, MAX_CHILDREN + 1)
    return {
        **_fields(promise),
        "attempts": [_attempt(attempt) for attempt in attempts[-MAX_ATTEMPTS:]],
        "attempts_truncated": len(attempts) > MAX_ATTEMPTS,
        "children": children[:MAX_CHILDREN],
        "children_truncated": len(children) > MAX_CHILDREN,
    }


def _fields(promise: Promise) -> dict[str, Any]:
    return {
        "id": promise.id,
        "state": promise.state,
        "kind": promise.kind,
        "group": promise.group,
        "function": promise.function,
        "version": promise.version,
        "tags": promise.tags,
        "args": promise.args,
        "value": promise.value,
        "error": public_error(promise.error),
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
    return {**attempt, "error": public_error(attempt["error"]), **times}


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
