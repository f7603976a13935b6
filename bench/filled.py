"""W9: chains while the table holds a million settled promises, copies of a chain that really ran."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import psycopg
from psycopg import sql

from bench.installation import Setting
from bench.rows import Row
from bench.run import Run
from bench.system import System
from bench.systems.flows import FLOWS
from bench.workloads import CHAINS, Workload

PROMISES = 1_000_000
PROMISES_OF_A_CHAIN = 3
# Workers that are measured on an almost empty table have done about as much before.
WARM_CHAINS = 1_000
WORKLOADS: tuple[Workload, ...] = tuple(
    replace(chains, rounds=2, name=f"W9-{chains.name}", title=f"{chains.title}, {PROMISES:,} promises in the table")
    for chains in CHAINS
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


def compare_filled(run: Run, systems: Sequence[System]) -> Iterator[Row]:
    """Fill the table, and measure chains again."""
    wanted = [workload for workload in WORKLOADS if run.wants(workload.name)]
    chosen = [system for system in systems if system in run.systems]
    if not wanted or FLOWS not in chosen:
        return
    setting = Setting()
    with run.installed(chosen, setting) as installations:
        for installation in installations.values():
            with installation.turn():
                installation.ask("at_once", installation.side.probe, (), expected=3, times=WARM_CHAINS)
        with psycopg.connect(run.servers.database_url, autocommit=True) as database:
            fill(database, PROMISES)
        for workload in wanted:
            yield from run.rows(workload, setting, chosen, installations)


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
