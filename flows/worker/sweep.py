"""The sweep: finds what is due, lost, orphaned or past its deadline and sends it again. No node is special."""

import logging
from collections.abc import Sequence

from flows import canvas
from flows.store import joins, nodes, sweeps
from flows.store.cancel import cancel_tree

log = logging.getLogger(__name__)


def sweep(node_id: int, groups: Sequence[str], *, trusts_locks: bool) -> None:
    """Do what is due for all, if it is this node's turn; then wake this node's own groups."""
    if nodes.take_sweep_turn(node_id):
        recovered = sweeps.recover(trusts_locks=trusts_locks)
        # Nobody will wait for the calls of a promise that was given up.
        for promise_id in recovered.rejected_ids:
            cancel_tree(promise_id)
        parents = [*recovered.parent_ids, *sweeps.expire_due()]
        woken = [*joins.join(parents), *joins.join_missed()]
        # What was lost with a process comes by its own message: it is not drained.
        canvas.send([*recovered.ready, *canvas.few_per_group(woken)])
        for group in sorted(sweeps.note_unserved()):
            log.warning("no live node serves group %s: its promises wait", group)
    # Only for groups that it serves: a group without workers gets no messages; a worker that comes finds its work here.
    unsent = sweeps.unsent(groups)
    if unsent:
        sweeps.mark_sent(ready.id for ready in canvas.send(unsent))
