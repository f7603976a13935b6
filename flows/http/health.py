"""Whether the process lives, and whether it can serve requests."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from celery import current_app
from django.db import DatabaseError, InterfaceError, connections
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from kombu.exceptions import KombuError

from flows.http.problem_types import NOT_READY
from flows.http.problems import HttpProblem
from flows.store import sql

log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 2
OK = "ok"
# Alias of the database connection that a probe opens and closes.
_PROBE = "flows-probe"

# Few, so that many probes at once cannot use up the connections of the servers that they look at.
_probes = ThreadPoolExecutor(2, thread_name_prefix="flows-probe")


@require_safe
async def healthz(request: HttpRequest) -> JsonResponse:
    """Say that the process answers; looks at nothing else."""
    return JsonResponse({"status": OK})


@require_safe
async def readyz(request: HttpRequest) -> JsonResponse:
    """Say whether requests can be served: PostgreSQL must answer and be migrated.

    The broker is reported and not required: without it flows are started all the same, and sent when it is back.
    """
    database, broker = await asyncio.gather(_probe(_database), _probe(_broker))
    if database != OK:
        raise HttpProblem(NOT_READY, f"PostgreSQL: {database}.", postgresql=database, broker=broker)
    return JsonResponse({"status": "ready", "postgresql": database, "broker": broker})


async def _probe(look: Callable[[], str]) -> str:
    """Return what ``look`` finds. A server that hangs is away too, after twice the time-out of its connection."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(_probes, look), 2 * PROBE_TIMEOUT_S)
    except TimeoutError:
        return "does not answer"


def _database() -> str:
    # A connection of its own: readiness must not wait for those of requests, nor keep one of them.
    connection = connections[_PROBE] = sql.connection().copy(_PROBE)
    connection.settings_dict["OPTIONS"].pop("pool", None)
    connection.settings_dict["OPTIONS"]["connect_timeout"] = PROBE_TIMEOUT_S
    try:
        executor = MigrationExecutor(connection)
        is_behind = bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    except (DatabaseError, InterfaceError) as error:
        log.warning("PostgreSQL is away: %s", error)
        return "away"
    finally:
        connection.close()
    return "not migrated" if is_behind else OK


def _broker() -> str:
    timeouts = {"socket_timeout": PROBE_TIMEOUT_S, "socket_connect_timeout": PROBE_TIMEOUT_S}
    try:
        with current_app.connection_for_write(transport_options=timeouts) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=PROBE_TIMEOUT_S)
    except (KombuError, OSError) as error:
        log.warning("the broker is away: %s", error)
        return "away"
    return OK
