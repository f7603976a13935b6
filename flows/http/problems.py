"""Errors as problem details (RFC 9457): one shape for every 4xx and 5xx outside the admin."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from flows.domain.errors import (
    FlowsError,
    InvalidInputError,
    PromiseCanceled,
    PromiseConflict,
    PromiseFailed,
    PromiseNotFound,
    PromiseRejected,
    PromiseTimedOut,
)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = 2

# The status of each error; the first class that fits counts. 422 for a conflict: so says the Idempotency-Key draft
# (draft-ietf-httpapi-idempotency-key-header-07) of a key that is used again for another request.
_STATUS: tuple[tuple[type[Exception], str, HTTPStatus], ...] = (
    (InvalidInputError, "invalid-input", HTTPStatus.BAD_REQUEST),
    (PromiseConflict, "promise-conflict", HTTPStatus.UNPROCESSABLE_ENTITY),
    (PromiseNotFound, "promise-not-found", HTTPStatus.NOT_FOUND),
    (PromiseRejected, "promise-rejected", HTTPStatus.INTERNAL_SERVER_ERROR),
    (PromiseTimedOut, "promise-timed-out", HTTPStatus.GATEWAY_TIMEOUT),
    (PromiseCanceled, "promise-canceled", HTTPStatus.GONE),
    (OperationalError, "database-away", HTTPStatus.SERVICE_UNAVAILABLE),
    (InterfaceError, "database-away", HTTPStatus.SERVICE_UNAVAILABLE),
)


class HttpProblem(FlowsError):
    """A request cannot be answered; carries the status of the answer."""

    def __init__(self, status: HTTPStatus, slug: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug


def problem(
    request: HttpRequest, status: HTTPStatus, *, slug: str = "", detail: str = "", **members: Any
) -> JsonResponse:
    """Return a problem response; without ``slug`` its type is ``about:blank``, which says no more than the status."""
    body = {
        "type": f"urn:flows:problem:{slug}" if slug else "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail or status.description or status.phrase,
        "instance": request.path,
        **members,
    }
    response = JsonResponse(body, status=status.value, content_type=CONTENT_TYPE)
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response["Retry-After"] = str(RETRY_AFTER_S)
    return response


def problem_of(request: HttpRequest, error: Exception) -> JsonResponse | None:
    """Return the problem that ``error`` stands for, None if it is none of ours."""
    if isinstance(error, HttpProblem):
        return problem(request, error.status, slug=error.slug, detail=str(error))
    for kind, slug, status in _STATUS:
        if isinstance(error, kind):
            return problem(request, status, slug=slug, detail=_detail(error), **_members(error))
    return None


def _detail(error: Exception) -> str:
    if isinstance(error, OperationalError | InterfaceError):
        return "The database is away; nothing was changed. Send the request again."
    return str(error)


def _members(error: Exception) -> dict[str, Any]:
    if isinstance(error, InvalidInputError):
        return {"field": error.field, "rule": error.rule}
    members: dict[str, Any] = {"promise_id": error.promise_id} if isinstance(error, PromiseFailed) else {}
    if isinstance(error, PromiseRejected):
        members["error"] = {"type": error.error["type"], "message": error.error["message"]}
    return members


class ProblemMiddleware:
    """Makes a problem of every error that leaves the views; the admin keeps its pages. Belongs first in MIDDLEWARE."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._acall(request)
        return _as_problem(request, self.get_response(request))

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        return _as_problem(request, await self.get_response(request))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer what a view raised."""
        return None if _is_admin(request) else problem_of(request, exception)


def _as_problem(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    is_error = response.status_code >= HTTPStatus.BAD_REQUEST
    if not is_error or response.get("Content-Type") == CONTENT_TYPE or _is_admin(request):
        return response
    made = problem(request, HTTPStatus(response.status_code))
    if "Allow" in response:
        made["Allow"] = response["Allow"]
    return made


def _is_admin(request: HttpRequest) -> bool:
    return request.path.startswith(reverse("admin:index"))
