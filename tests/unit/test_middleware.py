"""What Django's middleware for pages does, and does not do to the routes."""

import asyncio
import threading
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from django.urls import URLPattern

from gateway_project.middleware import ROUTES, CommonMiddleware, SessionMiddleware
from gateway_project.urls import urlpatterns


def has_session(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(hasattr(request, "session")))


def test_the_routes_are_those_of_the_gateways_own_views():
    patterns = [each for each in urlpatterns if isinstance(each, URLPattern)]
    assert {f"/{each.pattern}" for each in patterns if each.lookup_str.startswith("gateway_project.views.")} == ROUTES


def test_the_gateway_has_the_common_middleware_that_takes_no_thread():
    assert f"{CommonMiddleware.__module__}.{CommonMiddleware.__name__}" in settings.MIDDLEWARE


def test_a_page_has_what_the_routes_pass_by():
    middleware = SessionMiddleware(has_session)
    assert middleware(RequestFactory().get("/trees/p")).content == b"True"
    assert middleware(RequestFactory().post("/await-chain")).content == b"False"


async def refuse(request: HttpRequest) -> HttpResponse:
    raise AssertionError


async def empty(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"{}")


class Telling(CommonMiddleware):
    """Tells in which threads its halves were called."""

    def process_request(self, request: HttpRequest) -> Any:
        self.called_in = {threading.get_ident()}
        return super().process_request(request)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        self.called_in.add(threading.get_ident())
        return super().process_response(request, response)


def test_what_the_routes_need_too_is_run_where_it_is_called():
    middleware: Any = Telling(empty)
    response = asyncio.run(middleware(AsyncRequestFactory().post("/await-chain")))
    assert middleware.called_in == {threading.get_ident()}
    assert response["Content-Length"] == "2"


def test_a_host_that_is_not_ours_comes_no_further():
    request = AsyncRequestFactory().post("/await-chain", headers={"host": "elsewhere.example.org"})
    middleware: Any = CommonMiddleware(refuse)
    with pytest.raises(DisallowedHost):
        asyncio.run(middleware(request))
