"""What keeps promises from going on, as far as the tables and PostgreSQL itself can tell. Reads for the doctor."""

from flows.conf import settings
from flows.store.nodes import LOCK_SPACE
from flows.store.sql import Row, repeatable_rows

MAX_FOUND = 100

ASIDE = """
SELECT id, root_id, "group", function, note FROM flows_promise
WHERE state = 'pending' AND note <> '' AND phase = 'aside' AND deadline_at > now() ORDER BY deadline_at LIMIT %(limit)s
"""

# Ready, and noted to wait for code: by a worker that did not know the name, or not the version.
NO_CODE = """
SELECT id, "group", function, version, note FROM flows_promise
WHERE state = 'pending' AND note <> '' AND phase = 'ready' AND deadline_at > now()
    AND (note LIKE '%% knows no function %%' OR note LIKE 'UnknownVersionError:%%')
ORDER BY ready_at LIMIT %(limit)s
"""

EXTERNAL = """
SELECT id, function, created_at, deadline_at, now() AS now FROM flows_promise
WHERE state = 'pending' AND kind = 'external' AND deadline_at > now() ORDER BY created_at LIMIT %(limit)s
"""

DELAYED = """
SELECT id, "group", function, failures, ready_at, note, now() AS now FROM flows_promise
WHERE phase = 'ready' AND settled_at IS NULL AND ready_at > now() AND deadline_at > now()
ORDER BY ready_at LIMIT %(limit)s
"""

# What has killed workers, and will be given up if it goes on.
LOSING = """
SELECT id, "group", function, losses FROM flows_promise
WHERE state = 'pending' AND losses > 0 AND deadline_at > now() ORDER BY losses DESC LIMIT %(limit)s
"""

# Calls to one node that is not there.
NOBODY_THERE = """
SELECT id, "group", addressee FROM flows_promise p
WHERE phase = 'ready' AND settled_at IS NULL AND addressee <> '' AND ready_at <= now() AND deadline_at > now()
    AND NOT EXISTS (
        SELECT FROM flows_node n, json_array_elements_text(n.groups) served
        WHERE n.lease_until > now() AND served = p."group" AND p.addressee IN (n.name, n.pid::text))
ORDER BY ready_at LIMIT %(limit)s
"""

VERSIONS = """
SELECT "group", function, version, count(*) AS count FROM flows_promise
WHERE state = 'pending' AND version IS NOT NULL AND phase <> '' AND deadline_at > now()
GROUP BY "group", function, version ORDER BY "group", function, version
"""

# The sessions that claim, by node: whether each holds its lock, and what took the lock. A moment is left for a lock
# that is taken again after a restart of PostgreSQL.
SESSIONS = """
WITH alive AS MATERIALIZED (
    SELECT classid::bigint AS space, objid::bigint AS session, pid FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid::bigint >= %(space)s
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT (SELECT count(*) FROM (SELECT FROM alive GROUP BY pid HAVING count(DISTINCT space) > 1) AS shared) AS shared,
    (SELECT json_agg(json_build_array(id, name)) FROM (
        SELECT p.id, n.name FROM flows_promise p JOIN flows_node n ON n.id = p.node_id
        WHERE p.phase = 'claimed' AND p.settled_at IS NULL AND p.ready_at IS NOT NULL AND n.lease_until > now()
            AND p.claimed_at < now() - %(lease)s AND NOT EXISTS (
            SELECT FROM alive WHERE alive.space = p.node_id + %(space)s AND alive.session = p.session)
        ORDER BY p.claimed_at LIMIT %(limit)s) AS found) AS unlocked
"""

SERVER = """
SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('full_page_writes') AS full_page_writes,
    current_setting('default_transaction_isolation') AS isolation,
    pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool AS is_read_only
"""


def set_aside() -> list[Row]:
    """Return promises that were set aside: id, root_id, group, function, note."""
    return repeatable_rows(ASIDE, limit=MAX_FOUND)


def without_code() -> list[Row]:
    """Return promises that wait for a worker that knows them: id, group, function, version, note."""
    return repeatable_rows(NO_CODE, limit=MAX_FOUND)


def external() -> list[Row]:
    """Return promises that wait for somebody outside, the oldest first: id, function, created_at, deadline_at, now."""
    return repeatable_rows(EXTERNAL, limit=MAX_FOUND)


def delayed() -> list[Row]:
    """Return promises that wait for their next attempt: id, group, function, failures, ready_at, note, now."""
    return repeatable_rows(DELAYED, limit=MAX_FOUND)


def losing() -> list[Row]:
    """Return promises whose last attempts ended with their processes: id, group, function, losses."""
    return repeatable_rows(LOSING, limit=MAX_FOUND)


def nobody_there() -> list[Row]:
    """Return calls to nodes that do not live: id, group, addressee."""
    return repeatable_rows(NOBODY_THERE, limit=MAX_FOUND)


def versions() -> list[Row]:
    """Return which versions of which functions are in flight: group, function, version, count."""
    return repeatable_rows(VERSIONS)


def sessions() -> Row:
    """Return what the session locks tell.

    ``shared``: how many sessions hold locks of several nodes; ``unlocked``: pairs of a promise and the live node that
    has held it for longer than a lease, without a lock.
    """
    return repeatable_rows(SESSIONS, space=LOCK_SPACE, lease=settings.LEASE, limit=MAX_FOUND)[0]


def server() -> Row:
    """Return what durability hangs on: fsync, synchronous_commit, full_page_writes, isolation, is_read_only."""
    return repeatable_rows(SERVER)[0]
