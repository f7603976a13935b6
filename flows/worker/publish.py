"""Commits outcomes and sends what follows from them: new calls as links and chords, woken parents, detached calls."""

import logging
import time
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import replace

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError

from flows import canvas
from flows.canvas import Hint
from flows.domain.promise import LOCAL_KINDS, Continuation, Kind
from flows.engine.decision import Call, SetAside
from flows.store import joins, outcomes
from flows.store.claims import ReadyRef
from flows.store.outcomes import Committed, Outcome
from flows.store.sql import is_about_locks
from flows.worker import changes

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 0.5


def persist(batch: Sequence[Outcome], *, again: bool = False, gives_up: bool = False) -> dict[str, Committed]:
    """Write ``batch`` and return what was written, by promise id; the rest had lost its claim.

    Waits for PostgreSQL as long as it is away or writes nothing: finished work is not thrown away. If an answer is lost
    and the batch is written again, its calls are there already and its ends are refused; the sweep then sends. With
    ``gives_up`` it does not wait for others' locks, but raises ``OperationalError``.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return outcomes.commit(batch, again=again, gives_up=gives_up)
        except (IntegrityError, DataError) as error:
            return _persist_one_by_one(batch, error, again=again)
        except (DatabaseError, InterfaceError) as error:
            if gives_up and is_about_locks(error):
                raise
            log.warning("%d outcomes wait for PostgreSQL: %s", len(batch), error)
        except Exception as error:  # one outcome that cannot be written must not hold up the others
            return _persist_one_by_one(batch, error, again=again)
        again = True
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def send(
    batch: Sequence[Outcome],
    written: dict[str, Committed],
    *,
    celery_continues: str | None = None,
    stays_for: Collection[str] = (),
    waits_for: Collection[str] = (),
) -> list[ReadyRef]:
    """Send what became ready with ``written``.

    ``celery_continues`` is the promise whose parent Celery itself will wake, by its link or as part of a chord. For the
    Celery tasks ``stays_for`` nothing is sent, as the caller looks for them; for ``waits_for`` no message, as it waits
    for them: others that wait are offered these. Return what is left to the caller, of each it waits for one.
    """
    changes.committed(batch, written)
    held = [outcome for outcome in batch if outcome.claim.invocation.id in written]
    ended = [each for each in written.values() if each.parent and each.id != celery_continues]
    missed = [each.parent.id for each in ended if each.parent and not each.woke_parent]
    woken = [each.parent for each in ended if each.parent and each.woke_parent] + _join([*missed, *_doubtful(held)])
    calls = [ref for outcome in held for ref in _ready_calls(outcome.calls)]
    released = [_claimed_ref(outcome) for outcome in held if outcome.released]
    # Those who keep the woken ones open are asked first (see pollers).
    ready = [*woken, *calls, *released]
    stays = [ref for ref in ready if ref.is_for(stays_for)]
    others = [ref for ref in ready if not ref.is_for(stays_for)]
    needed = canvas.needed(others, waits_for=waits_for)
    left = [ref for ref in needed if ref.is_for(waits_for)]
    chosen = set(needed).difference(left)
    hints = [hint for outcome in held if outcome.calls for hint in _hints(outcome, chosen)]
    canvas.publish([*hints, *(canvas.signature(ref) for ref in [*woken, *released] if ref in chosen)])
    return [*stays, *left]


def _persist_one_by_one(batch: Sequence[Outcome], error: Exception, *, again: bool) -> dict[str, Committed]:
    if len(batch) > 1 or not again:
        return {id: each for outcome in batch for id, each in persist([outcome], again=True).items()}
    if isinstance(batch[0].decision, SetAside):
        raise error
    # What it made cannot be written; nothing was. Somebody must look at it.
    log.error("the outcome of %s cannot be written", batch[0].claim.invocation.id, exc_info=error)
    note = f"its outcome cannot be written: {error}"
    written = persist([replace(batch[0], calls=(), decision=SetAside(note=note))])
    return {id: each._replace(is_aside=True) for id, each in written.items()}


def _join(parent_ids: Iterable[str]) -> list[ReadyRef]:
    try:
        return joins.join(parent_ids)
    except (DatabaseError, InterfaceError) as error:
        log.warning("parents not woken, the sweep will: %s", error)
        return []


def _doubtful(held: Iterable[Outcome]) -> list[str]:
    """Return suspended promises whose awaited children may have settled before the suspension could be seen."""
    return [
        outcome.claim.invocation.id
        for outcome in held
        if outcome.cancels or (outcome.awaits and not outcome.new_ids.issuperset(outcome.awaits))
    ]


def _ready_calls(calls: Iterable[Call]) -> list[ReadyRef]:
    return [_ref(call) for call in calls if call.kind not in LOCAL_KINDS]


def _ref(call: Call) -> ReadyRef:
    return ReadyRef(id=call.id, group=call.group, function=call.function, addressee=call.addressee)


def _claimed_ref(outcome: Outcome) -> ReadyRef:
    invocation = outcome.claim.invocation
    return ReadyRef(
        id=invocation.id, group=invocation.group, function=invocation.function, addressee=invocation.addressee
    )


def _hints(outcome: Outcome, chosen: Set[ReadyRef]) -> list[Hint]:
    """Return the messages for the calls of one attempt: a chord's header, or linked, if it was suspended on them."""
    calls = [
        (call.kind, ref) for call in outcome.calls if call.kind not in LOCAL_KINDS and (ref := _ref(call)) in chosen
    ]
    hangs = [ref for kind, ref in calls if kind is not Kind.DETACHED] if outcome.awaits else []
    alone = [canvas.signature(ref) for _, ref in calls if ref not in hangs]
    if not hangs:
        return alone
    if outcome.continuation is Continuation.LINK:
        return [*alone, canvas.linked(hangs[0], _claimed_ref(outcome))]
    return [*alone, *canvas.chorded(hangs, _claimed_ref(outcome))]
