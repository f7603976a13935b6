import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from local.readiness import responding_workers
from local.servers import Postgres, Redis, Server, ServerError, Servers
from tests.integration.local.processes import is_alive
from tests.waiting import wait_until

ORPHANED = """
import os, signal, sys
from pathlib import Path
from local.servers import Servers
servers = Servers.start(Path(sys.argv[1]))
print(servers.postgres.pid, servers.redis.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    with Postgres(tmp_path) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path) as server:
        yield server


@pytest.fixture(params=[Postgres, Redis])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with request.param(tmp_path) as started:
        yield started


@pytest.fixture
def no_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)


def query(server: Postgres, statement: str) -> str:
    with psycopg.connect(server.url) as connection:
        (value,) = connection.execute(statement.encode()).fetchone() or ("",)
        return str(value)


def test_postgres_is_a_recent_one_and_keeps_its_durability(postgres: Postgres) -> None:
    assert int(query(postgres, "SHOW server_version_num")) >= 180000
    assert query(postgres, "SHOW fsync") == query(postgres, "SHOW synchronous_commit") == "on"


def test_postgres_answers_from_its_own_folder(postgres: Postgres) -> None:
    assert Path(query(postgres, "SHOW data_directory")) == postgres.data


def test_postgres_does_not_run_as_root(postgres: Postgres) -> None:
    status = Path(f"/proc/{postgres.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status


def test_committed_rows_survive_a_kill(postgres: Postgres) -> None:
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    postgres.kill()
    postgres.restart()
    assert query(postgres, "SELECT value FROM kept") == "7"


def test_redis_keeps_its_data_over_a_restart(own_redis: Redis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.set("kept", "7")
    own_redis.restart()
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.get("kept") == b"7"


def test_workers_are_counted_also_after_redis_was_restarted(own_redis: Redis) -> None:
    assert responding_workers(own_redis.url, expected=1) == 0
    own_redis.restart()
    assert responding_workers(own_redis.url, expected=1) == 0


def test_redis_refuses_who_has_no_password(own_redis: Redis) -> None:
    with (
        redis.Redis(port=own_redis.port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_url_stays_the_same_over_kill_and_restart(server: Server) -> None:
    url, pid = server.url, server.pid
    server.kill()
    with pytest.raises(ServerError, match="not running"):
        _ = server.pid
    server.restart()
    assert server.url == url
    assert server.pid != pid


def test_stopped_server_is_gone(server: Server) -> None:
    pid = server.pid
    server.stop()
    assert not is_alive(pid)


def test_folder_in_use_is_refused(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.server.STOP_S", 0.1)
    with pytest.raises(ServerError, match="another"):
        type(server)(tmp_path).start()


def test_answer_of_another_server_is_not_taken_for_ours(server: Server, tmp_path: Path) -> None:
    impostor = type(server)(tmp_path / "other")
    impostor.port = server.port
    with pytest.raises(ServerError):
        impostor.start()
    assert is_alive(server.pid)


def test_stale_pid_file_does_not_prevent_a_start(postgres: Postgres) -> None:
    postgres.kill()
    stale = (postgres.data / "postmaster.pid").read_text().splitlines()
    (postgres.data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *stale[1:]]))
    postgres.restart()
    assert query(postgres, "SELECT 1") == "1"


@pytest.mark.usefixtures("no_urls")
def test_nothing_is_left_running_when_the_starter_is_killed(tmp_path: Path) -> None:
    starter = subprocess.run(
        [sys.executable, "-c", ORPHANED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert starter.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in starter.stdout.split()]
    assert len(pids) == 2
    wait_until(lambda: not any(map(is_alive, pids)))


@pytest.mark.usefixtures("no_urls")
def test_servers_named_in_the_environment_are_used_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_redis: Redis
) -> None:
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    with Servers.start(tmp_path / "own") as servers:
        assert servers.environ == {"DATABASE_URL": servers.postgres.url, "REDIS_URL": own_redis.url}
        with pytest.raises(ServerError, match="not ours"):
            servers.redis.stop()
    assert is_alive(own_redis.pid)
