import json

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from local.ports import free_port


@pytest.fixture
def not_migrated(transactional_db):
    recorder = MigrationRecorder(connection)
    last = MigrationLoader(connection).graph.leaf_nodes("flows")[0]
    recorder.record_unapplied(*last)
    yield
    recorder.record_applied(*last)


@pytest.fixture
def no_database(transactional_db, monkeypatch):
    """For new connections: the one that is open stays."""
    connection.ensure_connection()
    monkeypatch.setitem(connection.settings_dict, "PORT", free_port())


def test_a_process_lives_without_any_server(ask, no_database, servers):
    servers.redis.kill()
    try:
        assert json.loads(ask("GET", "/healthz").content) == {"status": "ok"}
    finally:
        servers.redis.start()


def test_ready_is_who_can_serve_requests(ask):
    response = ask("GET", "/readyz")
    assert json.loads(response.content) == {"status": "ready", "postgresql": "ok", "broker": "ok"}


def test_a_broker_that_is_away_is_told_and_not_needed(ask, servers):
    servers.redis.kill()
    try:
        response = ask("GET", "/readyz")
        assert (response.status_code, json.loads(response.content)["broker"]) == (200, "away")
    finally:
        servers.redis.start()


def test_without_the_database_nobody_is_ready(ask, no_database):
    assert_not_ready(ask("GET", "/readyz"), "away")


def test_on_an_older_schema_nobody_is_ready(ask, not_migrated):
    assert_not_ready(ask("GET", "/readyz"), "not migrated")


def assert_not_ready(response, postgresql):
    problem = json.loads(response.content)
    assert (response.status_code, response["Retry-After"]) == (503, "2")
    assert (problem["type"], problem["postgresql"], problem["broker"]) == ("/problems/not-ready", postgresql, "ok")
