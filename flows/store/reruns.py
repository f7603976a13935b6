"""Starts the call of a root again under another id, with what its first calls have come to."""

import json

from django.db import IntegrityError, transaction

from flows import logs
from flows.conf import settings
from flows.domain import ids
from flows.domain.errors import PromiseConflict
from flows.store import changes
from flows.store.claims import ReadyRef
from flows.store.joins import ready_refs
from flows.store.sql import rows

# The calls of a promise are committed with a change of its row: while this lock is held no other is made.
LOCK = """SELECT id FROM flows_promise WHERE id = %(id)s FOR SHARE"""

DETACHED = """
SELECT "position" FROM flows_promise WHERE parent_id = %(id)s AND kind = 'detached' AND "position" < %(from_step)s
"""

# Its fencing token starts from 1 if calls are copied: a claim reads them from the second token on.
BEGIN = """
INSERT INTO flows_promise (id, root_id, "position", kind, "group", addressee, function, version, args, digest, retry,
    tags, trace, state, phase, note, continuation, fence, failures, losses, sends, wake_at, deadline_at, ready_at,
    sent_at)
SELECT %(new_id)s, %(new_id)s, 0, kind, "group", addressee, function, version, args, digest, retry, tags, %(trace)s,
    'pending', 'ready', '', '', CASE WHEN %(from_step)s > 0 THEN 1 ELSE 0 END, 0, 0, 0, 0,
    now() + (deadline_at - COALESCE(reopened_at, created_at)), now(), now()
FROM flows_promise WHERE id = %(id)s
ON CONFLICT (id) DO NOTHING
RETURNING id, root_id, "group", function, addressee
"""

# What has settled, with all its times: which of several settled first may matter. A detached call that is still under
# way is not started twice: under the new flow's id it never runs, and its note names the one that does.
COPY = """
INSERT INTO flows_promise (id, root_id, parent_id, "position", kind, "group", addressee, function, version, args,
    digest, retry, tags, trace, state, value, error, note, created_at, deadline_at, settled_at, phase, continuation,
    fence, failures, losses, sends, wake_at)
SELECT COALESCE(own.id, %(new_id)s || '.' || c."position"), COALESCE(own.id, %(new_id)s), %(new_id)s, c."position",
    c.kind, c."group", c.addressee, c.function, c.version, c.args, c.digest, c.retry, c.tags, %(trace)s,
    CASE c.state WHEN 'pending' THEN 'canceled' ELSE c.state END, c.value,
    CASE c.state WHEN 'pending' THEN NULL ELSE c.error END,
    CASE c.state WHEN 'pending' THEN 'runs as ' || c.id ELSE c.note END,
    c.created_at, c.deadline_at, COALESCE(c.settled_at, now()), '', c.continuation, 0, c.failures, 0, 0, 0
FROM flows_promise c LEFT JOIN json_to_recordset(%(detached)s::json) AS own("position" int, id text)
    ON own."position" = c."position"
WHERE c.parent_id = %(id)s AND c."position" < %(from_step)s AND (c.state <> 'pending' OR own.id IS NOT NULL)
"""


def run_again(promise_id: str, new_id: str, *, from_step: int = 0, trace: str | None = None) -> list[ReadyRef]:
    """Start the call of ``promise_id`` as ``new_id``, with its calls before ``from_step``; return what is ready.

    What runs of it has its spans below ``trace``. Raises ``PromiseConflict`` if the new id, or one below it, is taken;
    nothing is written then.
    """
    try:
        with transaction.atomic(using=settings.DATABASE):
            rows(LOCK, id=promise_id)
            begun = rows(BEGIN, id=promise_id, new_id=new_id, from_step=from_step, trace=trace)
            if not begun:
                raise PromiseConflict(f"promise {new_id!r} exists already; choose another id")
            if from_step:
                detached = _detached(promise_id, new_id, from_step)
                copied = {"id": promise_id, "new_id": new_id, "from_step": from_step, "trace": trace}
                rows(COPY, detached=json.dumps(detached), **copied)
    except IntegrityError as error:
        raise PromiseConflict(f"an id below {new_id!r} is taken already; choose another id") from error
    changes.tell(logs.NOTABLE, "started", begun)
    return ready_refs(begun)


def _detached(promise_id: str, new_id: str, from_step: int) -> list[dict[str, object]]:
    """Return the ids that the detached calls will have on replay: they are the new root's own."""
    positions = [row["position"] for row in rows(DETACHED, id=promise_id, from_step=from_step)]
    return [{"position": position, "id": ids.detached_id(new_id, new_id, position)} for position in positions]
