"""Django's middleware, kept out of the way of the three routes: none of it is asynchronous in itself.

Under an ASGI server each of its halves takes a request to a thread and back. The routes pass by what only pages need;
what they need, too, waits for nothing, and is run where it is called. Of 2,000 callers who wait the last one had its
answer after 15 s instead of 24 to 36 by the first, and after 8.3 s instead of 11.3 by the second (`make bench`, W7).
"""

from typing import Any

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware import clickjacking, common, csrf, security
from django.utils.deprecation import MiddlewareMixin

ROUTES = frozenset({"/await-chain", "/detached-chain", "/fan-out-workflow"})


class ForPages:
    """Mixed into a middleware: requests to the routes go on without it."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        call: Any = super().__call__  # type: ignore[misc]  # of the middleware beside it
        return self.get_response(request) if request.path in ROUTES else call(request)


class WithoutThreads(MiddlewareMixin):
    """Mixed into a middleware whose halves wait for nothing."""

    get_response: Any
    process_request: Any
    process_response: Any

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.process_request(request) or await self.get_response(request)
        answered: HttpResponseBase = self.process_response(request, response)
        return answered


class SecurityMiddleware(WithoutThreads, security.SecurityMiddleware):
    pass


class CommonMiddleware(WithoutThreads, common.CommonMiddleware):
    pass


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
