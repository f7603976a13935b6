"""PostgreSQL dies, stays away, refuses to write, or ends its sessions: no work is lost, no request hangs."""

import time
from functools import partial

import psycopg
import pytest

from tests.waiting import wait_until

AWAY_S = 6
# What cannot be written is refused within this time, by a connection that is refused, and by one that is dead.
REFUSED_WITHIN_S = 4
WAIT_S = 5


@pytest.fixture(scope="module")
def servers(fragile_servers):
    return fragile_servers


@pytest.fixture(scope="module")
def stack(fragile_stack):
    return fragile_stack


@pytest.fixture
def superuser(servers):
    """Run statements, each by a connection of its own that may write."""

    def execute(*statements):
        options = "-c default_transaction_read_only=off"
        with psycopg.connect(servers.database_url, autocommit=True, options=options) as connection:
            for statement in statements:
                connection.execute(statement)

    return execute


def assert_refused_in_time(gateway, key):
    """A start cannot be promised now: it is refused soon, and the client is told to come again."""
    for prefer in ("respond-async", f"wait={WAIT_S}"):
        began = time.monotonic()
        answer = gateway.post("/await-chain", headers={"Idempotency-Key": key(), "Prefer": prefer})
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True), answer.text
        assert answer.json()["type"] == "/problems/database-away"
        assert time.monotonic() - began < REFUSED_WITHIN_S


def answers_since(load, answered):
    return len(load.answered(200)) > answered + 5


def test_postgresql_restarted_at_once_three_times(servers, under_load, is_back):
    with under_load(202, 503, wait_s=WAIT_S, slack_s=REFUSED_WITHIN_S) as load:
        for _ in range(3):
            servers.postgres.crash()
            servers.postgres.start()
            is_back()
            wait_until(partial(answers_since, load, len(load.answered(200))))


def test_postgresql_away(servers, gateway, key, under_load, is_back):
    with under_load(202, 503, wait_s=WAIT_S, slack_s=REFUSED_WITHIN_S):
        servers.postgres.crash()
        away_until = time.monotonic() + AWAY_S
        try:
            while time.monotonic() < away_until:
                assert_refused_in_time(gateway, key)
                time.sleep(0.5)
        finally:
            servers.postgres.start()
        is_back()


def test_postgresql_read_only(superuser, gateway, key, under_load, is_back):
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    with under_load(202, 503, wait_s=WAIT_S, slack_s=REFUSED_WITHIN_S):
        superuser("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()", end)
        try:
            away_until = time.monotonic() + 3
            while time.monotonic() < away_until:
                assert_refused_in_time(gateway, key)
                time.sleep(0.5)
        finally:
            superuser("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()", end)
        is_back()


def test_postgresql_ends_all_sessions(superuser, under_load, is_back):
    with under_load(202, 503, wait_s=WAIT_S, slack_s=REFUSED_WITHIN_S):
        for _ in range(2):
            superuser(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            is_back()
