"""Real servers for the tiers that need them, stopped by their handles."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from celery import current_app
from django.conf import settings
from django.core.management.color import no_style
from django.db import connection, connections
from django.test import TransactionTestCase

from local.servers import Servers
from tests import celery_app  # noqa: F401 - adds its queues

settings.SECRET_KEY = "only-for-tests"

NewServers = Callable[[str], AbstractContextManager[Servers]]


@pytest.fixture(scope="session")
def new_servers(tmp_path_factory: pytest.TempPathFactory) -> NewServers:
    """Start PostgreSQL and Redis of our own, whatever the environment names."""
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    return lambda name: Servers.start(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def servers(new_servers: NewServers) -> Iterator[Servers]:
    """PostgreSQL and Redis for whoever leaves them alone."""
    with new_servers("servers") as started:
        yield started


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """The database goes with its server: dropping it would first need every connection to end."""
    return True


@pytest.fixture(scope="session", autouse=True)
def _keep_what_migrations_made() -> Iterator[None]:
    """Empty the other tables alone after each test: to make permissions anew takes longer than most tests."""
    kept = {"auth_permission", "django_content_type"}

    def empty_tables(_: TransactionTestCase) -> None:
        names = set(connection.introspection.django_table_names(only_existing=True, include_views=False))
        connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), sorted(names - kept)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_tables)
        yield


@pytest.fixture(scope="session")
def broker(servers: Servers) -> None:
    """Point Celery at our own Redis, apart from what acceptance tests use there."""
    current_app.conf.update(broker_url=servers.redis_url.replace("/0", "/1"))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(servers: Servers, broker: None) -> None:
    """Point Django at our own PostgreSQL, and Celery at our own Redis."""
    import environ

    connections["default"].settings_dict |= environ.Env.db_url_config(servers.database_url) | {
        "OPTIONS": settings.DATABASES["default"]["OPTIONS"]
    }
