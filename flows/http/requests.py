"""What a request asks for in its headers and body. Each malformed one is an ``InvalidInputError`` that names it."""

import json
import re
from dataclasses import dataclass
from http import HTTPStatus

from django.http import HttpRequest

from flows.domain.errors import InvalidInputError
from flows.domain.ids import MAX_ID, check_id
from flows.http.problems import HttpProblem

DEFAULT_WAIT_S = 30
MAX_WAIT_S = 60
MAX_BODY = 1024

_STRING = re.compile(r'"(?P<text>[\x20-\x21\x23-\x5b\x5d-\x7e]*)"')
_PREFERENCE = re.compile(r'\s*(?P<name>[^\s=;,"]+)\s*(?:=\s*(?P<value>"[^"]*"|[^\s;,"]*))?')


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """How long the client is ready to wait, in seconds, and whether it said so itself."""

    wait_s: float
    is_given: bool


def promise_id(request: HttpRequest, route_id: str) -> str:
    """Return the id of the request's flow: the route's own, or ``<route id>:<Idempotency-Key>``.

    The key is a structured-field string in double quotes (draft-ietf-httpapi-idempotency-key-header-07); it may be sent
    without them.
    """
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return route_id
    quoted = _STRING.fullmatch(header.strip())
    key = quoted["text"] if quoted else header.strip()
    if not key:
        raise InvalidInputError("Idempotency-Key", "must not be empty")
    try:
        return check_id(f"{route_id}:{key}")
    except InvalidInputError as error:
        longest = MAX_ID - len(route_id) - 1
        raise InvalidInputError(
            "Idempotency-Key", f"must be 1 to {longest} characters out of letters, digits and ._:@/-"
        ) from error


def preference(request: HttpRequest) -> Preference:
    """Read ``Prefer`` (RFC 7240): ``wait=N`` in seconds, at most 60, or ``respond-async``; others are ignored."""
    wait_s: float | None = None
    for part in request.headers.get("Prefer", "").split(","):
        match = _PREFERENCE.match(part)
        if match is None:
            continue
        name, value = match["name"].lower(), (match["value"] or "").strip('"')
        if name == "respond-async" and wait_s is None:
            wait_s = 0
        elif name == "wait":
            wait_s = _wait(value)
    return Preference(wait_s=DEFAULT_WAIT_S if wait_s is None else min(wait_s, MAX_WAIT_S), is_given=wait_s is not None)


def check_body(request: HttpRequest) -> None:
    """Raise unless the body is empty or an empty JSON object: the routes take no input."""
    if int(request.headers.get("Content-Length") or 0) > MAX_BODY:
        raise HttpProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", f"The body may have {MAX_BODY} bytes.")
    body = request.body.strip()
    if not body:
        return
    if request.content_type != "application/json":
        raise HttpProblem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not-json", "A body must be application/json.")
    try:
        content = json.loads(body)
    except ValueError as error:
        raise InvalidInputError("body", f"is not JSON: {error}") from error
    if content != {}:
        raise InvalidInputError("body", "must be empty or {}: the route takes no input")


def _wait(value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise InvalidInputError("Prefer", f"wait={value!r} must be a whole number of seconds, such as wait=10")
    return int(value)
