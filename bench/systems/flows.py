"""Ours: durable functions, started and awaited through the public names of flows."""

import itertools
import uuid
from dataclasses import replace
from typing import Any

from bench.system import Outcome, Side, System, database_url, redis_url
from local.servers import Servers

GROUPS = ("service-a", "service-b", "service-c")
# Of a second installation, on the same servers.
SECOND_DATABASE, SECOND_BROKER = "flows_second", 5


class Client:
    """A process of the team's Django project."""

    def __init__(self) -> None:
        import django

        from celery_app import app

        app.set_current()
        django.setup()
        self._ids = (f"bench-{uuid.uuid4().hex}-{number}" for number in itertools.count())

    def chain(self) -> Outcome:
        return self._begin("foo", "foo")

    def nap(self, milliseconds: int) -> Outcome:
        return self._begin("nap", milliseconds)

    def fan_out(self, count: int) -> Outcome:
        return self._begin("fan_out", count)

    def sleepy_fan_out(self, count: int, milliseconds: int) -> Outcome:
        return self._begin("sleepy_fan_out", count, milliseconds)

    def calls(self, count: int) -> Outcome:
        return self._begin("calls", count)

    def steps(self, count: int) -> Outcome:
        return self._begin("steps", count)

    def _begin(self, function: str, *args: Any) -> Outcome:
        from flows import begin_rpc

        return begin_rpc(next(self._ids), function, *args, target="service-a").result


def variables(servers: Servers) -> dict[str, str]:
    return {**servers.environ, "DJANGO_SETTINGS_MODULE": "bench.settings"}


def second(servers: Servers) -> Servers:
    """Return the same servers with the databases of the second installation."""
    return replace(
        servers, database_url=database_url(servers, SECOND_DATABASE), redis_url=redis_url(servers, SECOND_BROKER)
    )


SIDE = Side(name="flows", procfile="flows", client=Client, probe="chain", variables=variables)
CALLS = ("fan_out", "sleepy_fan_out", "calls", "steps")
FLOWS = System(
    name="flows",
    side=SIDE,
    does={"chain": "chain", "chains": "chain", **dict(zip(CALLS, CALLS, strict=True))},
    configuration="the settings of `gateway_project`; the client calls `begin_rpc` and `Handle.result`",
)
# The same again, to be measured beside it: with a table of its own.
FLOWS_SECOND = replace(
    FLOWS,
    name="flows-second",
    side=replace(SIDE, name="flows-second", variables=lambda servers: variables(second(servers))),
)
