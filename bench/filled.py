"""W9: chains while the table holds a million settled promises, copies of a chain that really ran.

Beside a second installation whose table is almost empty: one is compared with the other, in the same rounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import psycopg
from psycopg import sql

from bench.installation import Setting
from bench.rows import Row
from bench.run import Run
from bench.systems.celery import CELERY_NESTED
from bench.systems.flows import FLOWS, FLOWS_SECOND, SECOND_DATABASE, second
from bench.workloads import LATENCY, THROUGHPUT, Workload
from local.stack import Stack

PROMISES = 1_000_000
PROMISES_OF_A_CHAIN = 3
# Workers that are measured on an almost empty table have done about as much before.
WARM_CHAINS = 1_000
WORKLOADS: tuple[Workload, ...] = tuple(
    replace(chains, name=f"W9-{chains.name}", title=f"{chains.title}, {PROMISES:,} promises in the table")
    for chains in (LATENCY, THROUGHPUT)
)

A_CHAIN = "SELECT root_id FROM flows_promise WHERE function = 'baz' AND state = 'resolved' ORDER BY created_at LIMIT 1"
COLUMNS = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_name = %s AND is_identity = 'NO' ORDER BY ordinal_position
"""
# Copies lie before the original, a tenth of a second apart, as if the chains had run one after another.
COPY = """
INSERT INTO {table} ({columns})
SELECT {values} FROM generate_series(1, %(copies)s) AS n, {table}
WHERE {key} = %(root)s OR starts_with({key}, %(root)s || '.')
"""


def compare_filled(run: Run) -> Iterator[Row]:
    """Fill the table of one installation, and measure chains in both."""
    wanted = [workload for workload in WORKLOADS if run.wants(workload.name)]
    if not wanted or FLOWS not in run.systems:
        return
    setting = Setting()
    systems = [FLOWS, FLOWS_SECOND]
    if CELERY_NESTED in run.systems:
        systems.append(CELERY_NESTED)
    with psycopg.connect(run.servers.database_url, autocommit=True) as database:
        database.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(SECOND_DATABASE)))
        Stack(second(run.servers).environ, folder=run.folder, only=()).migrate()
        with run.installed(systems, setting) as installations:
            for installation in installations.values():
                with installation.turn():
                    installation.ask("at_once", installation.side.probe, (), expected=3, times=WARM_CHAINS)
            fill(database, PROMISES)
            for workload in wanted:
                yield from _compared(run.rows([workload], setting, systems, installations))


def _compared(rows: Sequence[Row]) -> Iterator[Row]:
    full, almost_empty, *others = rows
    ratio = (full.per_s or full.p50_ms or 0) / (almost_empty.per_s or almost_empty.p50_ms or 1)
    yield replace(full, note=f"x{ratio:.2f} of the almost empty table")
    yield from (replace(almost_empty, note="an almost empty table"), *others)


def fill(database: psycopg.Connection, promises: int) -> None:
    """Copy a chain with its attempts until there are so many promises, and let PostgreSQL take stock of them."""
    found = database.execute(A_CHAIN).fetchone()
    if found is None:
        raise RuntimeError("no chain has run yet that could be copied")
    copies = promises // PROMISES_OF_A_CHAIN
    for table, key in (("flows_promise", "id"), ("flows_attempt", "promise_id")):
        columns = database.execute(COLUMNS, [table]).fetchall()
        statement = sql.SQL(COPY).format(
            table=sql.Identifier(table),
            key=sql.Identifier(key),
            columns=sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns),
            values=sql.SQL(", ").join(_copied(name, kind) for name, kind in columns),
        )
        database.execute(statement, {"root": found[0], "copies": copies})
        database.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)))
    database.execute("CHECKPOINT")


def _copied(name: str, kind: str) -> sql.Composable:
    column = sql.Identifier(name)
    if name == "id" or (name.endswith("_id") and kind == "character varying"):
        return sql.SQL("replace({}, %(root)s, 'copy-' || n)").format(column)
    if kind == "timestamp with time zone":
        return sql.SQL("{} - n * interval '0.1 s'").format(column)
    return column
