"""Decisions on the wire: Celery signatures, links and chords. A message carries a promise id and one continuation.

Nothing depends on a message arriving: what must happen next stands in the table, and the sweep sends again. So a failed
send is logged and forgotten.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from typing import Any, TypeVar
from uuid import uuid4

from celery import Signature, current_app
from celery.utils.nodenames import worker_direct
from django.db import DatabaseError, InterfaceError
from kombu import Producer
from kombu.exceptions import KombuError

from flows import pollers
from flows.engine.registry import AnyFunction, registry
from flows.pollers import HandedOver
from flows.store import nodes
from flows.store.claims import ReadyRef

log = logging.getLogger(__name__)

R = TypeVar("R")

# After the broker was found to be away nothing is sent for as long as it took to find out, within these bounds: one
# that refuses may be asked often, one that hangs may not. What would have been sent is found by the sweep.
BROKER_PAUSES_S = (0.1, 1.0)
_away_until = 0.0

# What publishing may raise when the broker is away: kombu's wrapped errors, plain socket errors, and the AttributeError
# of a channel whose connection was lost under it.
_OUTAGES = (KombuError, OSError, AttributeError)

# What a function's Celery options may say of its messages.
_MESSAGE_OPTIONS = ("priority", "delivery_mode", "compression")


class Hint(Signature):
    """A signature that may get lost: sending it raises nothing, also where Celery sends it as a link or chord body."""

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Send the message."""
        publish([self])


def publish(hints: Sequence[Hint]) -> bool:
    """Send messages, all at once; return False if they are left to the sweep.

    Goes to Celery's own producers directly: the message is always the same but for ids, and what ``send_task`` looks up
    for each takes twice as long as all the rest. If the broker was away a moment ago only one in a while finds out.
    """
    if not hints:
        return True
    return bool(_reach(", ".join(map(str, hints[:2])), lambda: _put_all(hints)))


def _reach(what: str, act: Callable[[], R]) -> R | None:
    """Do something at the broker; return None if it failed, which is logged, or the broker was away a moment ago."""
    global _away_until
    began = time.monotonic()
    if began < _away_until:
        return None
    try:
        return act()
    except Exception as error:  # what is committed must not be reported as failed
        is_outage = isinstance(error, (*_OUTAGES, *_broker_errors()))
        log.warning("%s not sent, the sweep will send again: %s", what, error, exc_info=not is_outage)
        ended = time.monotonic()
        least, most = BROKER_PAUSES_S
        _away_until = ended + min(max(ended - began, least), most) if is_outage else 0.0
        return None


def _put_all(hints: Sequence[Hint]) -> bool:
    with current_app.producer_pool.acquire(block=True) as producer:
        if len(hints) == 1:
            _put(producer, hints[0])
        else:
            with producer.batch():  # type: ignore[attr-defined]  # missing from the stubs
                for hint in hints:
                    _put(producer, hint)
    return True


def _put(producer: Producer, hint: Hint) -> None:
    amqp, options, caller = current_app.amqp, hint.options, current_app.current_worker_task
    route = {name: options[name] for name in ("queue", "exchange", "routing_key", *_MESSAGE_OPTIONS) if name in options}
    message = amqp.create_task_message(
        options["task_id"],
        hint.task,
        argsrepr=options["argsrepr"],
        kwargsrepr="{}",
        callbacks=options.get("link"),
        chord=options.get("chord"),
        group_id=options.get("group_id"),
        group_index=options.get("group_index"),
        root_id=caller and (caller.request.root_id or caller.request.id),
        parent_id=caller and caller.request.id,
        ignore_result=True,
        create_sent_event=current_app.conf.task_send_sent_event,
    )
    # Whoever consumes from a queue declares it.
    amqp.send_task_message(producer, hint.task, message, declare=[], **route)


def _broker_errors() -> tuple[type[BaseException], ...]:
    """Return what the broker's own client raises."""
    with current_app.connection_for_write() as connection:
        return (*connection.connection_errors, *connection.channel_errors)


def signature(ready: ReadyRef, **options: Any) -> Hint:
    """Return the message that asks ``ready.group`` to run the promise; its task id is the promise id."""
    function = registry.find(ready.group, ready.function)
    given = function.celery_options if function else {}
    return Hint(
        ready.task_name,
        app=current_app,
        immutable=True,
        options={
            "task_id": ready.id,
            **_route(ready),
            **{name: given[name] for name in _MESSAGE_OPTIONS if name in given},
            "ignore_result": True,
            "argsrepr": f"({ready.id!r},)",
            **options,
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
    refs = list(ready)
    return refs if publish([signature(each) for each in refs]) else []


def linked(child: ReadyRef, parent: ReadyRef) -> Hint:
    """Return the message for the only call that ``parent`` awaits, with the parent linked to it."""
    return signature(child, link=[signature(parent)])


def chorded(children: Sequence[ReadyRef], parent: ReadyRef) -> list[Hint]:
    """Return the messages for several calls that ``parent`` awaits: the header of a chord whose body is the parent."""
    body, group_id = signature(parent), str(uuid4())
    return [signature(child, chord=body, group_id=group_id, group_index=index) for index, child in enumerate(children)]


def is_drainable(function: AnyFunction) -> bool:
    """Return False if Celery applies a limit to each message of the function: then each promise has its message."""
    return not function.celery_options and not _has_time_limits()


@cache
def _has_time_limits() -> bool:
    # Looked up once: each look-up searches a chain of mappings, and every message asks.
    return bool(current_app.conf.task_time_limit or current_app.conf.task_soft_time_limit)


def is_drained(ready: ReadyRef) -> bool:
    """Return whether any worker of the group takes the promise up with others, without a message of its own."""
    known = registry.find(ready.group, ready.function)
    return not ready.addressee and (known is None or is_drainable(known))


def wake(ready: Iterable[ReadyRef]) -> list[ReadyRef]:
    """Send what workers need to come for these promises; return those that a message was sent for."""
    return send(needed(ready))


def wake_another(ready: ReadyRef) -> None:
    """Have one more worker come for calls of this function, whatever message is on its way already."""
    if ready.task_name not in _hand_over([ready], {ready.task_name}).taken:
        send([ready])


def needed(ready: Iterable[ReadyRef], *, waits_for: Collection[str] = ()) -> list[ReadyRef]:
    """Hand the promises over to workers that wait for some, and return those that need a message.

    A worker drains its group, so one message is enough for all calls of a function, and none is needed while an earlier
    one is on its way. For the Celery tasks ``waits_for`` no message is announced: the caller sends it, or takes the
    token. Ask only once the promises are committed.
    """
    chosen: dict[tuple[str, str], ReadyRef] = {}
    alone = []
    for each in ready:
        if is_drained(each):
            chosen.setdefault((each.group, each.function), each)
        else:
            alone.append(each)
    met = _hand_over(list(chosen.values()), waits_for)
    return [*alone, *(ref for ref in chosen.values() if ref.task_name not in met.taken | met.announced)]


def _hand_over(refs: list[ReadyRef], unannounced: Collection[str]) -> HandedOver:
    if not refs:
        return HandedOver()
    tokens = {ref.task_name: ref.id if ref.was_suspended else None for ref in refs}
    met = _reach(f"tokens for {refs[0].id}", lambda: pollers.hand_over(tokens, unannounced))
    return met or HandedOver()
