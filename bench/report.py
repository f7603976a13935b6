"""Writes what was measured: `bench/results.json`, and figures, table and plot of `docs/performance.md`."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata, util
from pathlib import Path

import psutil
import psycopg
import redis

from bench.rows import Row
from bench.system import System
from bench.table import table
from local.process import ROOT
from local.servers import Servers

RESULTS = ROOT / "bench" / "results.json"
PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "performance.svg"
BEGIN, END = "<!-- make bench writes from here -->", "<!-- to here -->"
PACKAGES = ("celery", "kombu", "redis", "django", "django-celery-results", "psycopg", "dbos")
GB = 2**30


def write_results(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as JSON, an object for each."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def write_page(rows: Sequence[Row], systems: Sequence[System], servers: Servers) -> None:
    """Put the figures into the page, and draw its plot."""
    parts = [machine(), versions(servers), configurations(systems), table(rows)]
    if util.find_spec("matplotlib"):
        from bench.plot import draw

        draw(rows, PLOT)
        parts.append(f"![times as fast as plain Celery]({PLOT.name})")
    PAGE.write_text(between_marks(PAGE.read_text(), "\n\n".join(parts)))


def between_marks(page: str, text: str) -> str:
    """Return the page with the text in place of what stood between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def machine() -> str:
    """Say on what this runs."""
    memory = psutil.virtual_memory().total / GB
    return f"Machine: {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.machine()}."


def versions(servers: Servers) -> str:
    """Say which versions were measured."""
    with psycopg.connect(servers.database_url) as database:
        postgres = ".".join(str(part) for part in divmod(database.info.server_version, 10_000))
    with redis.Redis.from_url(servers.redis_url) as client:
        redis_server = client.info("server")["redis_version"]
    packages = [f"{name} {metadata.version(name)}" for name in PACKAGES if _is_installed(name)]
    servers_and_python = f"Python {platform.python_version()}, PostgreSQL {postgres}, Redis {redis_server}"
    return f"Versions: {servers_and_python}; {', '.join(packages)}."


def _is_installed(package: str) -> bool:
    return next(iter(metadata.distributions(name=package)), None) is not None


def configurations(systems: Sequence[System]) -> str:
    """Say how each system was set up."""
    lines = ["| system | configuration |", "|---|---|"]
    return "\n".join(lines + [f"| {system.name} | {system.configuration} |" for system in systems])
