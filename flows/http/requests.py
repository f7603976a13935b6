"""What a request asks for in its headers and body. Each malformed one is an ``InvalidInputError`` that names it."""

import json
import re
from dataclasses import dataclass

from django.http import HttpRequest

from flows.domain.errors import InvalidInputError
from flows.domain.ids import MAX_ID, check_id, is_like_a_call
from flows.http.problem_types import BODY_TOO_LARGE, NOT_JSON
from flows.http.problems import HttpProblem

DEFAULT_WAIT_S = 30
MAX_WAIT_S = 60
MAX_BODY = 1024

_KEY = re.compile(r'"(?P<quoted>[^"]*)"|(?P<bare>[^"]*)')

_ATOM = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_WORD = rf'(?:{_ATOM}|"(?:[^"\\]|\\.)*+")'
_PARAMETER = rf"{_ATOM}[ \t]*+(?:=[ \t]*+{_WORD}[ \t]*+)?"
# One element of the list that RFC 7240 describes. Possessive: a malformed header is refused in linear time.
_PREFERENCE = re.compile(
    rf"[ \t]*+(?:(?P<name>{_ATOM})[ \t]*+(?:=[ \t]*+(?P<value>{_WORD})?[ \t]*+)?"
    rf"(?:;[ \t]*+(?:{_PARAMETER})?)*+)?(?:,|$)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """How long the client is ready to wait, in seconds; ``applied`` repeats what it asked for, as it is honoured."""

    wait_s: int
    applied: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRequest:
    """What a request to start a flow asks for."""

    promise_id: str
    preference: Preference


def read(request: HttpRequest, route_id: str) -> FlowRequest:
    """Return what the request asks for; raise ``InvalidInputError`` or ``HttpProblem`` if it is malformed."""
    check_body(request)
    return FlowRequest(promise_id=promise_id(request, route_id), preference=preference(request))


def promise_id(request: HttpRequest, route_id: str) -> str:
    """Return the id of the request's flow: the route's own, or ``<route id>:<Idempotency-Key>``.

    The key is a structured-field string in double quotes (draft-ietf-httpapi-idempotency-key-header-07); it may be sent
    without them.
    """
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return route_id
    match = _KEY.fullmatch(header.strip())
    key = match[match.lastgroup or "bare"] if match else header
    check_id(key, "Idempotency-Key")
    # Clients do not trust each other: one must not take the id of a call in the flow of another's key.
    if is_like_a_call(key):
        rule = f"{key!r} ends like the id of a call (.<number>): choose another ending"
        raise InvalidInputError("Idempotency-Key", rule)
    if len(key) > (longest := MAX_ID - len(route_id) - 1):
        raise InvalidInputError("Idempotency-Key", f"must be at most {longest} characters long, not {len(key)}")
    return f"{route_id}:{key}"


def preference(request: HttpRequest) -> Preference:
    """Read ``Prefer`` (RFC 7240): ``wait=N`` in seconds, at most 60, and ``respond-async``; others are ignored."""
    asked = _preferences(request.headers.get("Prefer", ""))
    applied = ["respond-async"] if "respond-async" in asked else []
    wait_s = 0 if applied else DEFAULT_WAIT_S
    if "wait" in asked:
        wait_s = _wait_s(asked["wait"])
        applied.append(f"wait={wait_s}")
    return Preference(wait_s=wait_s, applied=", ".join(applied))


def check_body(request: HttpRequest) -> None:
    """Raise unless the body is empty or an empty JSON object: the routes take no input."""
    body = request.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        raise HttpProblem(BODY_TOO_LARGE, f"The body has more than {MAX_BODY} bytes; the route takes no input.")
    if not body.strip():
        return
    if request.content_type != "application/json":
        raise HttpProblem(NOT_JSON, f"The body is declared as {request.content_type or 'nothing'}.")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("body", f"is not JSON: {error}") from error
    if content != {}:
        raise InvalidInputError("body", "must be empty or {}: the route takes no input")


def _preferences(header: str) -> dict[str, str]:
    """Return the preferences by name; of one that is given twice the first counts, as RFC 7240 has it."""
    found: dict[str, str] = {}
    position = 0
    while position < len(header):
        match = _PREFERENCE.match(header, position)
        if match is None:
            rule = f"{header[position:]!r} is malformed; send wait=10, respond-async or both, with a comma between them"
            raise InvalidInputError("Prefer", rule)
        if match["name"]:
            found.setdefault(match["name"].lower(), (match["value"] or "").strip('"'))
        position = match.end()
    return found


def _wait_s(value: str) -> int:
    if not re.fullmatch("[0-9]+", value):
        raise InvalidInputError("Prefer", f"wait={value!r} must be a whole number of seconds, such as wait=10")
    digits = value.lstrip("0") or "0"
    # Python refuses to read numbers of some thousand digits.
    return MAX_WAIT_S if len(digits) > len(str(MAX_WAIT_S)) else min(int(digits), MAX_WAIT_S)
