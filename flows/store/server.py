"""What PostgreSQL says of itself."""

from dataclasses import dataclass

from flows.store.sql import repeatable_rows

SERVER = """
SELECT current_setting('server_version') AS version, current_setting('max_connections')::int AS max_connections,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
    pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS is_read_only,
    pg_total_relation_size('flows_promise') + pg_total_relation_size('flows_attempt') AS bytes,
    (SELECT reltuples::bigint FROM pg_class WHERE oid = 'flows_promise'::regclass) AS about_promises
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The database of the promises. ``bytes`` is the size of promises and attempts with their indexes.

    ``about_promises`` is PostgreSQL's last estimate of their number, -1 if it has made none.
    """

    version: str
    max_connections: int
    connections: int
    is_read_only: bool
    bytes: int
    about_promises: int


def read_server() -> Server:
    """Return what the server says now."""
    return Server(**repeatable_rows(SERVER)[0])
