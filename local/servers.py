"""PostgreSQL and Redis for development and tests: the ones named in the environment, or else two of our own."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from local.postgres import Postgres
from local.redis import Redis
from local.server import Server, ServerError

__all__ = ["LOCAL", "Postgres", "Redis", "Server", "ServerError", "Servers"]

LOCAL = Path(__file__).resolve().parent.parent / ".local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The two servers of a stack. `postgres` or `redis` is None where the environment names one that is not ours.

    Leaving the `with` block stops what was started, and nothing else.
    """

    database_url: str
    redis_url: str
    own_postgres: Postgres | None
    own_redis: Redis | None

    @classmethod
    def start(cls, folder: Path = LOCAL) -> Self:
        """Start what `DATABASE_URL` and `REDIS_URL` do not name, with its data under `folder`."""
        postgres = None if "DATABASE_URL" in os.environ else Postgres(folder).start()
        try:
            redis = None if "REDIS_URL" in os.environ else Redis(folder).start()
        except BaseException:
            if postgres:
                postgres.stop()
            raise
        return cls(
            database_url=postgres.url if postgres else os.environ["DATABASE_URL"],
            redis_url=redis.url if redis else os.environ["REDIS_URL"],
            own_postgres=postgres,
            own_redis=redis,
        )

    @property
    def postgres(self) -> Postgres:
        """Our own PostgreSQL, to stop, kill or restart; ServerError if the environment named another."""
        if self.own_postgres is None:
            raise ServerError("DATABASE_URL names a server that is not ours to control")
        return self.own_postgres

    @property
    def redis(self) -> Redis:
        """Our own Redis, to stop, kill or restart; ServerError if the environment named another."""
        if self.own_redis is None:
            raise ServerError("REDIS_URL names a server that is not ours to control")
        return self.own_redis

    @property
    def environ(self) -> dict[str, str]:
        """The two variables that point a process at these servers."""
        return {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}

    def stop(self) -> None:
        for server in (self.own_redis, self.own_postgres):
            if server is not None:
                server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
