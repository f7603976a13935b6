"""What is measured: sides, each an installation with its workers and its client, and systems, ways to use a side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from local.servers import Servers

# Waits for what was started, and returns its value.
Outcome = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Workers from a Procfile in ``bench/procfiles``, and a client process that starts work for them.

    Each public method of the client starts one thing and returns its ``Outcome``; ``probe`` is the one that starts an
    await chain, through all workers.
    """

    name: str
    procfile: str
    client: Callable[[], object]
    probe: str
    variables: Callable[[Servers], Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A line of the report. ``does`` says which method of the client is meant by a workload's call."""

    name: str
    side: Side
    does: Mapping[str, str]
    configuration: str


def redis_url(servers: Servers, database: int) -> str:
    """Return the URL of one of the numbered databases of the Redis that all systems share."""
    return urlunsplit(urlsplit(servers.redis_url)._replace(path=f"/{database}"))


def database_url(servers: Servers, name: str) -> str:
    """Return the URL of a database of that name in the PostgreSQL that all systems share."""
    return urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
