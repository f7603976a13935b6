"""What Django's middleware for pages does, and does not do to the routes."""

from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import URLPattern

from gateway_project.middleware import ROUTES, SessionMiddleware
from gateway_project.urls import urlpatterns


def has_session(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(hasattr(request, "session")))


def test_the_routes_are_those_of_the_gateways_own_views():
    patterns = [each for each in urlpatterns if isinstance(each, URLPattern)]
    assert {f"/{each.pattern}" for each in patterns if each.lookup_str.startswith("gateway_project.views.")} == ROUTES


def test_a_page_has_what_the_routes_pass_by():
    middleware = SessionMiddleware(has_session)
    assert middleware(RequestFactory().get("/trees/p")).content == b"True"
    assert middleware(RequestFactory().post("/await-chain")).content == b"False"
