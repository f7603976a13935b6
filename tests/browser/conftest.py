"""A real Chromium on a real gateway, with a worker; all of them share the database of the tests.

Every page is watched: a test fails if one of them logs an error or asks any other host for anything.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Error,
    Page,
    Request,
    expect,
    sync_playwright,
)
from pytest_django import DjangoDbBlocker

from flows.models import Node
from local import chromium
from local.servers import Servers
from local.stack import Stack
from tests.waiting import wait_until

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Longer than anything takes; what is expected later than this does not come.
PATIENCE_MS = 20_000


# Of a module: as long as Playwright runs, its event loop is in everybody's way.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, or a skipped test where there is none; on CI there must be one."""
    path = chromium.find()
    if path is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(chromium.NOTICE)
    # Playwright runs an event loop in this thread, in which Django would refuse its database.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield launched
        launched.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="module")
def stage(
    browser: Browser,
    servers: Servers,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """The gateway and a worker of the example's groups."""
    variables = {
        "DATABASE_URL": servers.database_url.rpartition("/")[0] + f"/{connection.settings_dict['NAME']}",
        "REDIS_URL": servers.redis_url.replace("/0", "/1"),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "SECRET_KEY": "only-for-tests",
    }
    procfile = Path(__file__).with_name("Procfile")
    with Stack(variables, folder=tmp_path_factory.mktemp("stage"), procfile=procfile) as stack:
        yield stack.wait_ready()
    # Its worker has signed on again since the last test's rows were removed.
    with django_db_blocker.unblock():
        Node.objects.all().delete()


@pytest.fixture
def workers(stage: Stack, transactional_db: None) -> Stack:
    """The stage with a worker that is registered: the end of the last test has removed its row, too."""
    wait_until(Node.objects.exists)
    return stage


class Watched:
    """What went wrong on the pages of one test. ``expected`` are statuses that are no surprise."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.expected: set[int] = set()
        self.errors: list[str] = []
        self.strangers: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", self._page_error)
        page.on("dialog", self._dialog)
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        is_expected = any(f"status of {status}" in message.text for status in self.expected)
        if message.type in ("error", "warning") and not is_expected:
            self.errors.append(message.text)

    def _page_error(self, error: Error) -> None:
        self.errors.append(str(error))

    def _dialog(self, dialog: Dialog) -> None:
        self.errors.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.url}/", "data:")):
            self.strangers.append(request.url)


@pytest.fixture
def watched(workers: Stack) -> Iterator[Watched]:
    """The errors of this test's pages; there must be none in the end."""
    watched = Watched(workers.gateway_url)
    yield watched
    assert watched.errors == []
    assert watched.strangers == []


@pytest.fixture
def open_as(browser: Browser, watched: Watched) -> Iterator[Callable[..., Page]]:
    """Open a page as somebody who is logged in, by default one who may do everything."""
    contexts: list[BrowserContext] = []

    def open_as(path: str, *permissions: str, theme: str = "light", width: int = 1280) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,  # type: ignore[arg-type]  # a literal
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        context.add_cookies([{"name": "sessionid", "value": _session(permissions), "url": watched.url}])
        page = context.new_page()
        watched.watch(page)
        page.goto(watched.url + path)
        return page

    yield open_as
    for context in contexts:
        context.close()


def _session(permissions: tuple[str, ...]) -> str:
    name = "-".join(permissions) or "admin"
    user, is_new = User.objects.get_or_create(username=name, is_staff=True, is_superuser=not permissions)
    if is_new:
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


@pytest.fixture(scope="session")
def findings() -> Callable[..., list[str]]:
    """What axe finds on a page that is serious or critical; by all its rules, or by those that are named."""
    axe = Axe()

    def findings(page: Page, *rules: str) -> list[str]:
        options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
        violations = axe.run(page, options=options).response["violations"]
        return [
            f"{each['id']}: {[node['html'][:200] for node in each['nodes'][:3]]}"
            for each in violations
            if each["impact"] in ("serious", "critical")
        ]

    return findings
