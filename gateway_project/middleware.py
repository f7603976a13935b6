"""Django's middleware, kept out of the way of the three routes: none of it is asynchronous in itself.

Under an ASGI server each of its halves takes a request to a thread and back. The routes pass by what only pages need:
the last of 2,000 callers who wait had its answer after 15 s instead of 24 to 36 (`make bench`, W7). CommonMiddleware
waits for nothing, and is run where it is called. So could SecurityMiddleware, but Django's checks know it by its path.
"""

from typing import Any

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware import clickjacking, common, csrf

ROUTES = frozenset({"/await-chain", "/detached-chain", "/fan-out-workflow"})


class ForPages:
    """Mixed into a middleware: requests to the routes go on without it."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        call: Any = super().__call__  # type: ignore[misc]  # of the middleware beside it
        return self.get_response(request) if request.path in ROUTES else call(request)


class CommonMiddleware(common.CommonMiddleware):
    get_response: Any

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        return self.process_response(request, self.process_request(request) or await self.get_response(request))


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
