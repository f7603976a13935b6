"""The sweep: finds what is due, lost, orphaned or past its deadline and sends it again. No node is special."""

import logging
from collections.abc import Callable, Sequence

from django.db import transaction

from flows import canvas
from flows.conf import settings
from flows.store import joins, nodes, sweeps
from flows.store.cancel import cancel_tree

log = logging.getLogger(__name__)


def sweep(node_id: int, *, recovers: bool) -> bool:
    """Find what was lost or missed, in all groups, if it is this node's turn; return whether it was.

    ``recovers`` is False for a moment after PostgreSQL was away: every lock is gone then, and every lease looks ended.
    """
    if not nodes.take_sweep_turn(node_id, recovers=recovers):
        return False
    if recovers:
        _recover()
    canvas.wake(joins.join_missed())
    for group in sorted(sweeps.note_unserved()):
        log.warning("no live node serves group %s: its promises wait", group)
    return True


def _recover() -> None:
    with transaction.atomic(using=settings.DATABASE):
        recovered = sweeps.recover()
        # Nobody will wait for the calls of a promise that was given up.
        for promise_id in recovered.rejected_ids:
            cancel_tree(promise_id)
    woken = joins.join(recovered.parent_ids)
    canvas.send(recovered.ready)
    canvas.wake(woken)


def fire(
    groups: Sequence[str], addresses: Sequence[str], attended: Callable[[], Sequence[str]], *, deadlines: bool
) -> float | None:
    """Settle timers and deadlines that are due, and send what is ready in this node's own groups and nobody came for.

    Nothing is sent for the Celery tasks ``attended``, but to this very node; these are asked for only if needed.

    Return in how many seconds the next retry or overdue message of ``groups`` is due, or, if ``deadlines``, the next
    timer or deadline of all; None if nothing is. A group without workers gets no messages; a worker that comes finds
    its work here.
    """
    is_due, seconds = sweeps.due(groups, deadlines=deadlines)
    if is_due:
        canvas.wake(joins.join(sweeps.expire_due()))
        unsent = sweeps.take_unsent(groups, addresses, attended=attended())
        if unsent and not canvas.send(unsent):
            sweeps.not_sent(ready.id for ready in unsent)
    return seconds
