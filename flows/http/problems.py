"""Errors as problem details (RFC 9457): one shape for every 4xx and 5xx outside the admin."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.encoding import escape_uri_path

from flows.domain.errors import FlowsError, InvalidInputError, PromiseFailed, PromiseRejected
from flows.http.problem_types import DATABASE_AWAY, RETRY_AFTER_S, ProblemType, type_of

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
_KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")
_DETAILS: dict[int, str] = {
    HTTPStatus.NOT_FOUND: "There is nothing at this address.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address does not take this method; Allow names those that it takes.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "This is a fault of the server, and it is in its log.",
}


class HttpProblem(FlowsError):
    """A request cannot be answered. ``members`` are added to the problem as they are."""

    def __init__(self, type: ProblemType, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.type = type
        self.members = members


def problem_of(request: HttpRequest, error: Exception) -> JsonResponse | None:
    """Return the problem that ``error`` stands for, None if it is none of ours."""
    if isinstance(error, HttpProblem):
        return _problem(request, error.type, str(error), error.members)
    type = type_of(error)
    if type is None:
        return None
    if type is DATABASE_AWAY:
        log.warning("%s %s: %s", request.method, request.path, error)
    return _problem(request, type, str(error) if isinstance(error, FlowsError) else type.explanation, _members(error))


def public_error(error: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a stored error without its tracebacks: they are for the team, in the admin, not for clients."""
    if error is None:
        return None
    return {"type": error["type"], "message": error["message"], "cause": public_error(error["cause"])}


class ProblemMiddleware:
    """Makes a problem of every error outside the admin. Belongs first in MIDDLEWARE.

    Error pages in HTML are replaced, Django's own above all; errors that a view answers in JSON are left as they are.
    """

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


def _problem(request: HttpRequest, type: ProblemType, detail: str, members: dict[str, Any]) -> JsonResponse:
    described = {"type": type.uri, "title": type.title, "status": type.status.value, "detail": detail}
    response = _response(request, {**described, **members})
    if type.status is HTTPStatus.SERVICE_UNAVAILABLE:
        response["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _members(error: Exception) -> dict[str, Any]:
    if isinstance(error, InvalidInputError):
        return {"field": error.field, "rule": error.rule}
    members: dict[str, Any] = {"promise_id": error.promise_id} if isinstance(error, PromiseFailed) else {}
    if isinstance(error, PromiseRejected):
        members["error"] = public_error(error.error)
    return members


def _as_problem(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    is_error = response.status_code >= HTTPStatus.BAD_REQUEST
    if not is_error or not response.get("Content-Type", "text/html").startswith("text/html") or _is_admin(request):
        return response
    status, title = response.status_code, response.reason_phrase
    detail = _DETAILS.get(status, f"The request was answered with {title}.")
    # The type that says no more than the status.
    made = _response(request, {"type": "about:blank", "title": title, "status": status, "detail": detail})
    for header in _KEPT_HEADERS:
        if header in response:
            made[header] = response[header]
    return made


def _response(request: HttpRequest, members: dict[str, Any]) -> JsonResponse:
    return JsonResponse(
        {**members, "instance": escape_uri_path(request.path)},
        status=members["status"],
        content_type=CONTENT_TYPE,
        json_dumps_params={"ensure_ascii": False},
    )


def _is_admin(request: HttpRequest) -> bool:
    # No match: the address is unknown, or the request was refused before it was looked at.
    return request.resolver_match is not None and "admin" in request.resolver_match.app_names
