"""The statement that commits what attempts have done, put together from what there is to write.

PostgreSQL prepares to run each part, even for no rows.
"""

from functools import cache
from typing import LiteralString

# The LIMITs tell the planner, which takes any JSON for a hundred rows, that there are few: so it uses the primary key.
# What a row of JSON leaves out is null: most have only a few of the columns, and each costs time to write and to read.
#
# `held` is the fence: rows whose claim is gone are not in it, and nothing else is written for them. (What has a node
# is claimed.) A deadline that has passed counts as gone too, whether or not somebody has written it.
_OUTCOME = """
WITH outcome AS (
    SELECT *"""

# What several threads have done waits for nobody's locks: no longer than the commit of other work may take.
_GIVES_UP = ", set_config('lock_timeout', '50ms', true)"

_HELD = """ FROM (
        SELECT * FROM json_to_recordset(%(outcomes)s::json) AS o(id text, fence bigint, node int, session int,
            state text, phase text, value text, error json, note text, delay float8, failures int, version int,
            wake_at int, outcome text)
        LIMIT %(outcome_count)s
    ) AS few LIMIT %(outcome_count)s
), held AS (
    UPDATE flows_promise p
    SET state = o.state, phase = o.phase, value = o.value::json, error = o.error, note = COALESCE(o.note, ''),
        failures = COALESCE(o.failures, p.failures), version = COALESCE(p.version, o.version),
        wake_at = COALESCE(o.wake_at, 0),
        settled_at = CASE WHEN o.state <> 'pending' THEN clock_timestamp() END,
        losses = CASE WHEN o.outcome IS NULL THEN p.losses ELSE 0 END,
        ready_at = CASE o.phase WHEN 'ready' THEN now() + COALESCE(o.delay, 0) * interval '1 second'
            WHEN 'claimed' THEN p.ready_at END,
        sent_at = NULL,
        node_id = CASE WHEN o.phase = 'claimed' THEN p.node_id END,
        session = CASE WHEN o.phase = 'claimed' THEN p.session END
    FROM outcome o
    WHERE p.id = o.id AND p.fence = o.fence AND p.node_id = o.node AND p.session = o.session
        AND p.deadline_at > clock_timestamp()
    RETURNING p.id, p.root_id, p.parent_id, p.kind, p.state, p.continuation, p.deadline_at, p.claimed_at, o.fence,
        o.node, o.session, o.outcome, o.error
"""

_BORN = """
), call AS (
    SELECT c.*, held.root_id, held.deadline_at AS limit_at
    FROM (
        SELECT * FROM json_to_recordset(%(calls)s::json) AS c(id text, parent_id text, fence bigint, "position" int,
            kind text, "group" text, addressee text, function text, version int, args text, digest text, retry json,
            tags json, trace text, timeout float8, until timestamptz, state text, value text, error json, failures int,
            continuation text, is_known bool)
        LIMIT %(call_count)s
    ) AS c
    JOIN held ON held.id = c.parent_id AND held.fence = c.fence
), born AS (
    INSERT INTO flows_promise (id, root_id, parent_id, "position", kind, "group", addressee, function, version, args,
        digest, retry, tags, trace, state, value, error, failures, continuation, phase, ready_at, sent_at, deadline_at,
        settled_at, note, fence, losses, sends, wake_at)
    SELECT id, CASE kind WHEN 'detached' THEN id ELSE root_id END, parent_id, "position", kind, "group",
        COALESCE(addressee, ''), function, version, args::json, digest, retry, COALESCE(tags, '{}'), trace, state,
        value::json, error, COALESCE(failures, 0), continuation,
        CASE WHEN kind IN ('run', 'timer', 'external') THEN '' ELSE 'ready' END,
        CASE WHEN kind NOT IN ('run', 'timer', 'external') THEN now() END, now(),
        CASE kind WHEN 'detached' THEN COALESCE(until, now() + timeout * interval '1 second') WHEN 'run' THEN limit_at
            ELSE LEAST(limit_at, COALESCE(until, now() + timeout * interval '1 second')) END,
        CASE WHEN state <> 'pending' THEN now() END, '', 0, 0, 0, 0
    FROM call WHERE is_known IS NOT TRUE
"""

# Written again, when an answer was lost: calls that are there already were written by this very statement before.
_AGAIN = """
    AND NOT EXISTS (SELECT FROM flows_promise e
        WHERE e.id = call.id AND e.parent_id = call.parent_id AND e.kind = call.kind AND e.digest = call.digest)
"""

# Local steps that had failed before, and are tried again.
_STEP = """
), step AS (
    UPDATE flows_promise p
    SET state = c.state, value = c.value::json, error = c.error, failures = c.failures,
        settled_at = CASE WHEN c.state <> 'pending' THEN now() END
    FROM call c WHERE c.is_known AND p.id = c.id AND p.settled_at IS NULL
"""

_AWAITED = """
), awaited AS (
    UPDATE flows_promise p SET continuation = a.continuation
    FROM json_to_recordset(%(awaited)s::json) AS a(id text, parent_id text, fence bigint,
        continuation text)
    JOIN held ON held.id = a.parent_id AND held.fence = a.fence
    WHERE p.id = a.id AND p.settled_at IS NULL
"""

# A parent that awaits this call alone may go on. If it is locked, or was suspended after this statement began, it is
# left to a join. (LATERAL: one by one, or PostgreSQL might read the whole table.)
_WOKEN = """
), woken AS (
    UPDATE flows_promise p SET phase = 'ready', ready_at = now(), sent_at = now(), sends = 0
    FROM (
        SELECT s.id FROM held CROSS JOIN LATERAL (
            SELECT id FROM flows_promise WHERE id = held.parent_id AND phase = 'suspended' FOR UPDATE SKIP LOCKED
        ) AS s
        WHERE held.state <> 'pending' AND held.continuation = 'link'
    ) AS free
    WHERE p.id = free.id
    RETURNING p.id
"""

# A token may have been given out twice, if a crash undid a claim (see claims): the attempt that still holds is the one.
_ATTEMPT = """
), attempt AS (
    INSERT INTO flows_attempt (promise_id, fence, node_id, session, outcome, error, started_at)
    SELECT id, fence, node, session, outcome, error, claimed_at FROM held WHERE outcome IS NOT NULL
    ON CONFLICT (promise_id, fence) DO UPDATE SET node_id = EXCLUDED.node_id, session = EXCLUDED.session,
        outcome = EXCLUDED.outcome, error = EXCLUDED.error, started_at = EXCLUDED.started_at,
        ended_at = EXCLUDED.ended_at
"""

_WRITTEN = """
)
SELECT held.id, held.continuation
FROM held
"""

_ENDED = """
)
SELECT held.id, held.continuation, parent.id AS parent_id, parent."group", parent.function,
    parent.addressee, EXISTS (SELECT FROM woken WHERE woken.id = parent.id) AS woke_parent,
    CASE WHEN held.state <> 'pending' AND held.kind IN ('root', 'detached')
        THEN pg_notify('flows_settled', held.id) END AS notified
FROM held LEFT JOIN flows_promise parent
    ON parent.id = held.parent_id AND held.state <> 'pending' AND held.continuation <> ''
"""


@cache
def outcome_statement(
    *, gives_up: bool, has_calls: bool, again: bool, has_steps: bool, has_marks: bool, has_ends: bool
) -> LiteralString:
    """Return the statement that can write all that a batch has.

    ``has_calls``: calls that are made, or, with ``has_steps``, local steps that are tried again; ``again``: some may be
    there already. ``has_marks``: calls of earlier transactions that are awaited now, or no longer. ``has_ends``:
    promises that settle. ``gives_up``: it waits for locks for 50 ms only.
    """
    parts: list[LiteralString] = [_OUTCOME, _GIVES_UP, _HELD] if gives_up else [_OUTCOME, _HELD]
    if has_calls:
        parts += [_BORN, _AGAIN] if again else [_BORN]
    if has_steps:
        parts.append(_STEP)
    if has_marks:
        parts.append(_AWAITED)
    parts += [_WOKEN, _ATTEMPT, _ENDED] if has_ends else [_ATTEMPT, _WRITTEN]
    # psycopg reads what is longer than 4,096 characters anew each time.
    return " ".join("".join(parts).split())
