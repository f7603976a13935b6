"""Decisions on the wire: Celery signatures, links and chords. A message carries a promise id and one continuation.

Nothing depends on a message arriving: what must happen next stands in the table, and the sweep sends again. So a failed
send is logged and forgotten.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

from celery import Signature, chord, current_app
from celery.utils.nodenames import worker_direct
from django.db import DatabaseError, InterfaceError
from kombu.exceptions import KombuError

from flows.engine.registry import AnyFunction, registry
from flows.store import nodes
from flows.store.claims import ReadyRef

log = logging.getLogger(__name__)

# A woken worker drains its group and wakes the next one, so a few messages start any number of promises.
MESSAGES_PER_GROUP = 2

# After the broker was found to be away nothing is sent for as long as it took to find out, within these bounds: one
# that refuses may be asked often, one that hangs may not. What would have been sent is found by the sweep.
BROKER_PAUSES_S = (0.1, 1.0)
_away_until = 0.0

# What publishing may raise when the broker is away: kombu's wrapped errors, plain socket errors, and the AttributeError
# of a channel whose connection was lost under it.
_OUTAGES = (KombuError, OSError, AttributeError)


class Hint(Signature):
    """A signature that may get lost: sending it raises nothing, also where Celery sends it as a link or chord body."""

    is_sent = False

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Send the message, unless the broker was away a moment ago: only one in a while waits to find out."""
        global _away_until
        began = time.monotonic()
        if began < _away_until:
            return None
        try:
            result = super().apply_async(*args, **kwargs)
        except Exception as error:  # what is committed must not be reported as failed
            is_outage = isinstance(error, _OUTAGES)
            log.warning("%s not sent, the sweep will send again: %s", self, error, exc_info=not is_outage)
            ended = time.monotonic()
            least, most = BROKER_PAUSES_S
            _away_until = ended + min(max(ended - began, least), most) if is_outage else 0.0
            return None
        self.is_sent = True
        return result


def signature(ready: ReadyRef) -> Hint:
    """Return the message that asks ``ready.group`` to run the promise; its task id is the promise id."""
    return Hint(
        f"{ready.group}.{ready.function}",
        app=current_app,
        immutable=True,
        options={
            "task_id": ready.id,
            **_route(ready),
            "ignore_result": True,
            "argsrepr": f"({ready.id!r},)",
        },
    )


def _route(ready: ReadyRef) -> dict[str, str]:
    """Return where the message goes: the group's queue, or the direct queue of the only node that may take it."""
    name = _node_name(ready) if ready.addressee else None
    if name is None:
        # For a node that is gone, too: whoever gets the message may not claim; the sweep notes why the promise waits.
        return {"queue": ready.group}
    direct = worker_direct(name)
    return {"exchange": direct.exchange.name, "routing_key": direct.routing_key}


def _node_name(ready: ReadyRef) -> str | None:
    try:
        return nodes.name_of(ready.group, ready.addressee)
    except (DatabaseError, InterfaceError) as error:
        log.warning("node of %s not looked up, its own sweep will send: %s", ready.id, error)
        return None


def send(ready: Iterable[ReadyRef]) -> list[ReadyRef]:
    """Send a message for each; return those that were sent."""
    sent = []
    for each in ready:
        message = signature(each)
        message.apply_async()
        if message.is_sent:
            sent.append(each)
    return sent


def send_linked(child: ReadyRef, parent: ReadyRef) -> None:
    """Send the only call that ``parent`` awaits, with the parent linked to it."""
    linked = signature(child)
    linked.link(signature(parent))
    linked.apply_async()


def send_chord(children: Sequence[ReadyRef], parent: ReadyRef) -> None:
    """Send several calls that ``parent`` awaits, as the header of a chord whose body is the parent."""
    try:
        chord([signature(child) for child in children], signature(parent), app=current_app).apply_async()
    except Exception as error:  # what is committed must not be reported as failed
        is_outage = isinstance(error, _OUTAGES)
        log.warning("calls of %s not sent, the sweep will send again: %s", parent.id, error, exc_info=not is_outage)


def is_drainable(function: AnyFunction) -> bool:
    """Return False if Celery applies a limit to each message of the function: then each promise has its message."""
    limits = (current_app.conf.task_time_limit, current_app.conf.task_soft_time_limit)
    return not function.celery_options and not any(limits)


def few_per_group(ready: Iterable[ReadyRef], limit: int = MESSAGES_PER_GROUP) -> list[ReadyRef]:
    """Return the first ``limit`` promises of each group that any of its nodes can drain, and all others."""
    counts: dict[str, int] = {}
    drained: dict[tuple[str, str], bool] = {}
    chosen = []
    for each in ready:
        name = (each.group, each.function)
        if name not in drained:
            known = registry.find(*name)
            drained[name] = known is None or is_drainable(known)
        if each.addressee or not drained[name]:
            chosen.append(each)
        elif counts.setdefault(each.group, 0) < limit:
            counts[each.group] += 1
            chosen.append(each)
    return chosen
