"""Decisions on the wire: Celery signatures, links and chords. A message carries a promise id and one continuation.

Nothing depends on a message arriving: what must happen next stands in the table, and the sweep sends again. So a failed
send is logged and forgotten.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from celery import Signature, chord, current_app
from kombu.exceptions import KombuError

from flows.engine.registry import registry
from flows.store.claims import ReadyRef

log = logging.getLogger(__name__)

# A woken worker drains its group and wakes the next one, so a few messages start any number of promises.
MESSAGES_PER_GROUP = 2

# What publishing may raise when the broker is away: kombu's wrapped errors, and plain socket errors.
_SEND_ERRORS = (KombuError, OSError)


def signature(ready: ReadyRef) -> "Signature[Any]":
    """Return the message that asks ``ready.group`` to run the promise; its task id is the promise id."""
    return current_app.signature(
        f"{ready.group}.{ready.function}",
        immutable=True,
        task_id=ready.id,
        queue=ready.group,
        ignore_result=True,
        argsrepr=f"({ready.id!r},)",
    )


def send(ready: Iterable[ReadyRef]) -> list[ReadyRef]:
    """Send a message for each; return those that were sent."""
    sent = []
    for each in ready:
        if not _try_send(signature(each)):
            break
        sent.append(each)
    return sent


def send_linked(child: ReadyRef, parent: ReadyRef) -> None:
    """Send the only call that ``parent`` awaits, with the parent linked to it."""
    linked = signature(child)
    linked.link(signature(parent))
    _try_send(linked)


def send_chord(children: Sequence[ReadyRef], parent: ReadyRef) -> None:
    """Send several calls that ``parent`` awaits, as the header of a chord whose body is the parent."""
    _try_send(chord([signature(child) for child in children], signature(parent), app=current_app))


def few_per_group(ready: Iterable[ReadyRef], limit: int = MESSAGES_PER_GROUP) -> list[ReadyRef]:
    """Return the first ``limit`` promises of each group that can be drained, and all that cannot."""
    counts: dict[str, int] = {}
    chosen = []
    for each in ready:
        known = registry.find(each.group, each.function)
        if known is not None and not known.is_drainable:
            chosen.append(each)
        elif counts.setdefault(each.group, 0) < limit:
            counts[each.group] += 1
            chosen.append(each)
    return chosen


def _try_send(message: "Signature[Any]") -> bool:
    try:
        message.apply_async()
    except Exception as error:  # what is committed must not be reported as failed
        is_outage = isinstance(error, _SEND_ERRORS)
        log.warning("%s not sent, the sweep will send again: %s", message, error, exc_info=not is_outage)
        return False
    return True
