"""The types of problems that the API answers with, and the one that each error stands for."""

from dataclasses import dataclass
from http import HTTPStatus

import psycopg
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError

from flows.domain import errors

RETRY_AFTER_S = 2


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One type of problem. ``explanation`` is served at ``uri``: what it means, and what to do."""

    slug: str
    status: HTTPStatus
    title: str
    explanation: str

    @property
    def uri(self) -> str:
        """The type's name in every answer (RFC 9457); it never changes."""
        return f"/problems/{self.slug}"


INVALID_INPUT = ProblemType(
    "invalid-input",
    HTTPStatus.BAD_REQUEST,
    "An input breaks a rule",
    "`field` names the header or value, `rule` says what would be right. Nothing was written.",
)
BODY_TOO_LARGE = ProblemType(
    "body-too-large",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "The body is too large",
    "Send a smaller one, or none where the route takes no input.",
)
NOT_JSON = ProblemType(
    "not-json",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "The body is not declared as JSON",
    "Send the header Content-Type: application/json, or no body.",
)
# 422, as the Idempotency-Key draft has it for a key that is used again for another request. Its 409 asks the client to
# try again later, which would never help here.
PROMISE_CONFLICT = ProblemType(
    "promise-conflict",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "The promise exists already, for another call",
    "An id, hence an Idempotency-Key, belongs to one call for ever. Use another one. Nothing was changed.",
)
PROMISE_NOT_FOUND = ProblemType(
    "promise-not-found",
    HTTPStatus.NOT_FOUND,
    "No promise has this id",
    "It was never started, or what started it was rolled back.",
)
PROMISE_REJECTED = ProblemType(
    "promise-rejected",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "The function behind the promise failed for good",
    "`error` has its type, message and cause. The outcome is final: the same request gets the same answer.",
)
PROMISE_TIMED_OUT = ProblemType(
    "promise-timed-out",
    HTTPStatus.GATEWAY_TIMEOUT,
    "The promise was still pending at its deadline",
    "The outcome is final: the same request gets the same answer.",
)
PROMISE_CANCELED = ProblemType(
    "promise-canceled",
    HTTPStatus.GONE,
    "The promise was canceled",
    "The outcome is final: the same request gets the same answer.",
)
STILL_PENDING = ProblemType(
    "still-pending",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "The promise is still pending",
    "The flow goes on. Send the same request again: it finds the same flow.",
)
DATABASE_AWAY = ProblemType(
    "database-away",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "The database did not answer",
    "Send the same request again: if it did start something, it finds the same flow.",
)
NOT_READY = ProblemType(
    "not-ready",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "The gateway cannot serve requests",
    "The other members say what is away.",
)

ALL = {
    each.slug: each
    for each in (
        INVALID_INPUT,
        BODY_TOO_LARGE,
        NOT_JSON,
        PROMISE_CONFLICT,
        PROMISE_NOT_FOUND,
        PROMISE_REJECTED,
        PROMISE_TIMED_OUT,
        PROMISE_CANCELED,
        STILL_PENDING,
        DATABASE_AWAY,
        NOT_READY,
    )
}

# The first class that fits counts. A pool that is exhausted or closed raises psycopg's OperationalError.
_OF_ERRORS: tuple[tuple[type[Exception], ProblemType], ...] = (
    (errors.InvalidInputError, INVALID_INPUT),
    (errors.PromiseConflict, PROMISE_CONFLICT),
    (errors.PromiseNotFound, PROMISE_NOT_FOUND),
    (errors.PromiseRejected, PROMISE_REJECTED),
    (errors.PromiseTimedOut, PROMISE_TIMED_OUT),
    (errors.PromiseCanceled, PROMISE_CANCELED),
    (errors.ResultTimeout, STILL_PENDING),
    (OperationalError, DATABASE_AWAY),
    (InterfaceError, DATABASE_AWAY),
    (psycopg.OperationalError, DATABASE_AWAY),
    (psycopg.InterfaceError, DATABASE_AWAY),
    (RequestDataTooBig, BODY_TOO_LARGE),
)


def type_of(error: Exception) -> ProblemType | None:
    """Return the problem that ``error`` stands for, None if it is nobody's but the programmer's."""
    if isinstance(error.__cause__, psycopg.errors.ReadOnlySqlTransaction):
        return DATABASE_AWAY
    return next((found for kind, found in _OF_ERRORS if isinstance(error, kind)), None)
