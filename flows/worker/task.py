"""The Celery task of each durable function: a message wakes the worker, the worker drains the group."""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from celery import Task, shared_task
from celery.exceptions import Ignore, Retry
from celery.utils.serialization import get_pickleable_exception
from django.db import DatabaseError, InterfaceError

from flows.canvas import is_drainable, needed, signature
from flows.domain.errors import PromiseRejected
from flows.domain.promise import Continuation
from flows.domain.values import decode
from flows.engine.decision import Decision, Failed, Rejected, Resolved, SetAside, Suspended
from flows.engine.registry import AnyFunction, registry
from flows.store import claims
from flows.store.claims import Claim, ReadyRef
from flows.store.outcomes import Committed
from flows.worker import changes, process
from flows.worker.attempts import close_open, run_attempt
from flows.worker.drain import arrived, drain, wake_if_slow, will_wait_for
from flows.worker.ledger import ledger

log = logging.getLogger(__name__)

R = TypeVar("R")


class Unsettled:
    """What a message returns if its promise is not settled by it. Shown in the log; no success for Celery's events."""

    PREFIX = "no outcome yet: "

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return self.PREFIX + self.reason


class DurableTask(Task):  # type: ignore[type-arg]  # generic in its stubs only
    """Runs the attempt that a message asks for, then what else is ready in its group."""

    abstract = True
    Request = "flows.worker.request:AttemptRequest"
    acks_late = True
    reject_on_worker_lost = True
    # The promise is the result.
    ignore_result = True
    durable_function: AnyFunction

    def run_attempt(self, *_: object, **__: object) -> Any:
        """Run one attempt of the promise whose id is the task id. A message for anything else changes nothing."""
        function = self.durable_function
        # The table decides what is continued; what the message says may be out of date.
        self.request.callbacks = self.request.chord = None
        named = ReadyRef(id=str(self.request.id), group=function.group, function=function.name)
        drains = is_drainable(function)
        was_announced = drains and arrived(function.group)
        try:
            claim, following = _trying_again(
                lambda: claims.claim_named(named, process.holder(), process.memory(), names_next=drains)
            )
        except (DatabaseError, InterfaceError) as error:
            log.warning("PostgreSQL is away, the sweep will send %s again: %s", named.id, error)
            raise Ignore from error
        # A message that found nothing may be meant to wake.
        self.request.update(drains=drains, looks=was_announced or claim is None or following is not None)
        if claim is None:
            return Unsettled("it has settled, runs elsewhere, waits, or does not exist")
        with _retiring():
            if following is not None:
                wake_if_slow(following)
            changes.claimed([claim])
            decision = run_attempt(claim, ledger())
            if decision is None:
                return Unsettled("fenced")
            waits_for = will_wait_for(function.group) if drains else ()
            is_resolved = isinstance(decision, Resolved)
            committed, left = ledger().finish(decision, celery_continues=is_resolved, waits_for=waits_for)
        if committed and is_resolved:
            left += self._continue(committed, waits_for)
        self.request.update(left=left)
        return self._end(claim, decision) if committed else Unsettled("fenced")

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Drain the group, the message still unacknowledged.

        Celery calls this in the main process too, for a task that ran into its time limit: nothing is run there.
        """
        self._drain()

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Drain the group: Celery calls ``after_return`` for no attempt that is tried again."""
        self._drain()

    def _drain(self) -> None:
        group = self.durable_function.group
        try:
            if self.request.get("drains"):
                looks, left = bool(self.request.get("looks")), self.request.get("left") or ()
                _trying_again(lambda: drain(group, looks=looks, left=left))
        except (DatabaseError, InterfaceError) as error:
            log.warning("PostgreSQL is away, the sweep will wake group %s: %s", group, error)
        finally:
            close_open()

    def _end(self, claim: Claim, decision: Decision) -> Any:
        """Tell Celery of the committed ``decision`` in its own terms."""
        match decision:
            case Resolved(value=value):
                return decode(value)
            case Rejected(exception=exception, error=error):
                # Celery takes a MemoryError, or what is no Exception, for the end of the worker.
                is_harmless = isinstance(exception, Exception) and not isinstance(exception, MemoryError)
                raise exception if is_harmless else PromiseRejected(claim.invocation.id, error)
            case Failed(exception=exception, delay=delay):
                # Only for the event and the log: the retry is stored, no message is held.
                cause = get_pickleable_exception(exception)  # type: ignore[arg-type]  # SystemExit may be one, too
                raise Retry(exc=cause, when=delay.total_seconds())  # type: ignore[arg-type]  # a float is a Real
            case Suspended(awaits=awaits):
                return Unsettled(f"suspended, awaits {len(awaits)}, first {awaits[0]}")
            case SetAside():
                return Unsettled("set aside")

    def _continue(self, committed: Committed, waits_for: Collection[str]) -> list[ReadyRef]:
        """Put the promise's own continuation on the request, from the table: Celery fires it when this task returns.

        Unless a worker has taken the parent already, or it is returned: then it is left to the drain that follows.
        """
        parent = committed.parent
        if parent is None:
            return []
        if committed.continuation is not Continuation.LINK:
            self.request.chord = signature(parent)  # type: ignore[assignment]  # the stubs say str
        elif not committed.woke_parent:
            self.request.callbacks = [signature(parent)]
        elif needed([parent], waits_for=waits_for):
            if parent.is_for(waits_for):
                return [parent]
            self.request.callbacks = [signature(parent)]
        return []


@contextmanager
def _retiring() -> Iterator[None]:
    """Whatever breaks off between a claim and its commit: give the session up, so that the sweep finds its claims."""
    try:
        yield
    except BaseException:
        process.retire()
        raise


def _trying_again(act: Callable[[], R]) -> R:
    """Act; once more, in a new session, if PostgreSQL had ended the one before: one that is there takes the message."""
    try:
        with _retiring():
            return act()
    except (DatabaseError, InterfaceError) as error:
        log.info("PostgreSQL was lost, trying again: %s", error)
    with _retiring():
        return act()


def register_tasks() -> None:
    """Register a Celery task for each durable function of this process."""
    for function in registry:
        task = shared_task(
            name=function.task_name, base=DurableTask, bind=True, durable_function=function, **function.celery_options
        )
        task(DurableTask.run_attempt)  # type: ignore[no-untyped-call]  # a decorator without types
