"""Django's middleware that only pages need. The three routes pass it by.

None of it is asynchronous in itself: under an ASGI server each of its halves takes a request to another thread and
back. Past it, 2,000 callers who wait have their answers in 15 s instead of 24 to 36 (`make bench`, W7).
"""

from typing import Any

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.middleware import clickjacking, csrf

ROUTES = frozenset({"/await-chain", "/detached-chain", "/fan-out-workflow"})


class ForPages:
    """Mixed into a middleware: requests to the routes go on without it."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        call: Any = super().__call__  # type: ignore[misc]  # of the middleware beside it
        return self.get_response(request) if request.path in ROUTES else call(request)


class SessionMiddleware(ForPages, sessions.SessionMiddleware):
    pass


class CsrfViewMiddleware(ForPages, csrf.CsrfViewMiddleware):
    pass


class AuthenticationMiddleware(ForPages, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(ForPages, messages.MessageMiddleware):
    pass


class XFrameOptionsMiddleware(ForPages, clickjacking.XFrameOptionsMiddleware):
    pass
