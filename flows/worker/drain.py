"""Drains a group: claims what is ready, many at once, and runs it, until nothing is ready nor becomes so at once.

Then any group that the node serves: one slot may run a whole chain of calls from group to group.

A drained attempt looks to Celery's signals, and to its events where they are on, like one that a message brought.
"""

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery import Task, current_app, signals, states
from celery._state import _task_stack  # type: ignore[attr-defined]  # missing from the stubs
from celery.app.task import Context
from celery.worker import state

from flows import canvas, pollers
from flows.domain.values import decode
from flows.engine.decision import Decision, Failed, Rejected, Resolved
from flows.engine.registry import AnyFunction, registry
from flows.queues import read_queues
from flows.store import claims
from flows.store.claims import Claim, ReadyRef
from flows.worker import changes, process
from flows.worker.attempts import open_invocation, run_attempt
from flows.worker.events import Events
from flows.worker.ledger import ledger

log = logging.getLogger(__name__)

# A batch of claims is meant to take this long: short enough that nobody waits behind it while another slot is free.
BATCH_S = 0.010
MAX_BATCH = 100
# After this long a drain hands over to a message, so that other queues, rate limits and child recycling get their turn.
DRAIN_S = 0.500
# For so long a drain waits for the next call: a message would take longer to come than most flows take for a step.
LINGER_S = 0.050
# A drain that waits for less than this share of the time that it is busy is crowded.
CROWDED = 0.2


class Pace:
    """How many attempts of a group fit into one batch, and how fast new ones come, as measured."""

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._busy_s = 0.0
        self._waited_s = LINGER_S

    def batch_size(self) -> int:
        """Return how many promises to claim at once: 1 until a duration is known."""
        if self._seconds is None:
            return 1
        return max(1, min(MAX_BATCH, int(BATCH_S / max(self._seconds, 1e-6))))

    def measured(self, durations_s: Sequence[float]) -> None:
        """Take the durations of a batch's attempts: slower counts at once, faster little by little.

        By their mean, as one attempt may have waited for the thread that commits.
        """
        if durations_s:
            seconds = sum(durations_s) / len(durations_s)
            known = seconds if self._seconds is None else self._seconds
            self._seconds = max(seconds, known + (seconds - known) * (1 - 0.875 ** len(durations_s)))

    def gathers_for(self, busy_s: float, waited_s: float) -> float:
        """Take how long a drain was busy and then waited; return for how many seconds it should let more calls come.

        Calls that come faster than they are run one by one cost less many at once (ADR 0019): it waits for as long as
        it was busy, at most for as long as a batch may take. Else, and where one attempt fills a batch, for 0.
        """
        # Of the last few times: each counts three quarters of the one after it.
        self._busy_s = busy_s + 0.75 * self._busy_s
        self._waited_s = waited_s + 0.75 * self._waited_s
        is_crowded = self._waited_s < CROWDED * self._busy_s and self.batch_size() > 1
        return min(busy_s, BATCH_S) if is_crowded else 0.0


_paces: dict[str, Pace] = {}


def arrived(group: str) -> bool:
    """Take note that a message has come for ``group``: who calls from now on sends another. False if none was due.

    Call this before the claim, so that whatever is called after it has a message of its own.
    """
    return pollers.clear([function.task_name for function in _drained(group)])


def wake_if_slow(following: ReadyRef) -> None:
    """Wake one more worker for what is ready, too, before an attempt that it would wait for; not if these are quick.

    What is not drained has a message of its own.
    """
    is_drained = not following.addressee and any(f.name == following.function for f in _drained(following.group))
    if is_drained and _pace(following.group).batch_size() == 1:
        canvas.wake([following])


def attended(slots: int) -> list[str]:
    """Return the Celery tasks that need no further message on this node, which has so many ``slots``.

    All of them drain the group, and a message waits in its queue already: the slot that ends next takes that, and
    looks. For the main process of a node.
    """
    try:
        tasks = [request.task for request in tuple(state.active_requests)]
    except RuntimeError:  # it changed while it was read: a slot has become free, perhaps
        return []
    functions = [task.durable_function for task in tasks if hasattr(task, "durable_function")]
    drains = Counter(function.group for function in functions if canvas.is_drainable(function))
    busy = [group for group, count in drains.items() if count >= slots]
    waiting = read_queues(busy).lengths if busy else {}
    return [function.task_name for group in busy if waiting.get(group) for function in _drained(group)]


def drain(group: str, *, looks: bool = True) -> None:
    """Run what is ready in ``group`` until nothing is, nor becomes for LINGER_S in any that the node serves.

    For DRAIN_S at most; ends sooner if the node is stopping. Wakes one more worker if more is ready than this one takes
    at first; that one does the same. ``looks`` is False if nothing is ready to begin with.
    """
    _Drain(group).run(looks=looks)


def _drained(*groups: str) -> list[AnyFunction]:
    tasks = current_app.tasks
    return [f for f in registry if f.group in groups and canvas.is_drainable(f) and f.task_name in tasks]


def _pace(group: str) -> Pace:
    return _paces.setdefault(group, Pace())


class _Drain:
    def __init__(self, group: str) -> None:
        # By the names of their tasks.
        self._drained = {function.task_name: function for function in _drained(group, *process.served())}
        self._turn_to(group)
        self._ledger = ledger()
        self._events = Events()
        self._is_over = False
        # A batch is run, and the next one is known to be there: who commits can be somebody else.
        self._more_follows = False

    def run(self, *, looks: bool) -> None:
        try:
            self._run(looks=looks)
        except Exception:
            self._flush()
            raise
        self._flush()

    def _run(self, *, looks: bool) -> None:
        since = time.monotonic()
        until = since + DRAIN_S
        has_woken = False
        while not process.is_stopping():
            if not looks:
                began = time.monotonic()
                if began > until or (group := self._wait()) is None:
                    return
                if group != self._group:
                    self._turn_to(group)
                elif gathers_s := self._pace.gathers_for(began - since, time.monotonic() - began):
                    time.sleep(gathers_s)
                since = time.monotonic()
                has_woken = False
            claimed, following = claims.claim_ready(
                self._group, self._functions, self._pace.batch_size(), process.holder(), process.memory()
            )
            self._is_over = time.monotonic() > until
            if following and (self._is_over or not has_woken):
                has_woken = True
                canvas.wake([following])
            looks = following is not None
            self._more_follows = looks and not self._is_over
            if claimed:
                looks |= self._run_batch(claimed)
            if not self._more_follows:
                looks |= self._flush()
            if self._is_over:
                return

    def _turn_to(self, group: str) -> None:
        functions = [function for function in self._drained.values() if function.group == group]
        self._group = group
        self._functions = [function.name for function in functions]
        self._task_names = [function.task_name for function in functions]
        self._pace = _pace(group)

    def _wait(self) -> str | None:
        """Return the group to look in; None if for LINGER_S nothing became ready."""
        opened = open_invocation()
        keeps = (opened.id, f"{opened.group}.{opened.function}") if opened else None
        others = [name for name in self._drained if name not in self._task_names]
        found = pollers.wait([*self._task_names, *others], LINGER_S, keeps)
        return found and self._drained[found].group

    def _run_batch(self, claimed: list[Claim]) -> bool:
        """Run the claims; return whether that made something ready for this very drain, which looks for it then."""
        changes.claimed(claimed)
        self._ledger.enqueue(claimed)
        looks, durations_s = False, []
        while not process.is_stopping() and (claim := self._ledger.begin_next()):
            began = time.monotonic()
            with _as_task(claim) as task:
                self._events.started(claim.invocation.id, task.name)
                decision = run_attempt(claim, self._ledger)
                durations_s.append(time.monotonic() - began)
                if decision is not None:
                    looks |= self._ledger.defer(decision, more_follows=self._more_follows, stays_for=self._stays_for())
                    _announce(task, claim, decision)
                    self._events.ended(claim.invocation.id, decision, durations_s[-1])
                    task.request.update(state=_state(decision))
        self._ledger.release()
        self._pace.measured(durations_s)
        return looks

    def _flush(self) -> bool:
        """Commit, then tell who watches; return whether something is ready for this very drain."""
        looks = self._ledger.flush(stays_for=self._stays_for())
        self._events.publish()
        return looks

    def _stays_for(self) -> Collection[str]:
        return () if self._is_over or process.is_stopping() else self._task_names


@contextmanager
def _as_task(claim: Claim) -> "Iterator[Task[Any, Any]]":
    """Make the attempt the current Celery task, between its prerun and postrun signals."""
    task = current_app.tasks[f"{claim.invocation.group}.{claim.invocation.function}"]
    promise_id = claim.invocation.id
    # Nothing of the message in hand: it is of another promise. Headers are given, or Celery looks for some in the rest.
    request = Context(
        id=promise_id,
        task=task.name,
        args=(),
        kwargs={},
        headers={},
        hostname=process.node_name(),
        root_id=claim.invocation.root_id,
        called_directly=False,
    )
    task.request_stack.push(request)
    _task_stack.push(task)
    call: dict[str, Any] = {"sender": task, "task_id": promise_id, "task": task, "args": (), "kwargs": {}}
    signals.task_prerun.send(**call)
    try:
        yield task
    finally:
        signals.task_postrun.send(**call, retval=None, state=request.get("state"))
        _task_stack.pop()
        task.pop_request()


def _announce(task: "Task[Any, Any]", claim: Claim, decision: Decision) -> None:
    match decision:
        case Resolved(value=value):
            if signals.task_success.receivers:
                signals.task_success.send(sender=task, result=decode(value))
        case Rejected(exception=exception):
            log.error("Task %s[%s] raised: %r", task.name, claim.invocation.id, exception, exc_info=exception)
            signals.task_failure.send(
                sender=task, task_id=claim.invocation.id, exception=exception, args=(), kwargs={},
                traceback=exception.__traceback__, einfo=None,
            )  # fmt: skip
        case Failed(exception=exception, delay=delay):
            wait_s = delay.total_seconds()
            log.info("Task %s[%s] retry in %.1f s: %r", task.name, claim.invocation.id, wait_s, exception)
            signals.task_retry.send(sender=task, request=task.request, reason=exception, einfo=None)


def _state(decision: Decision) -> str | None:
    match decision:
        case Resolved():
            return states.SUCCESS
        case Rejected():
            return states.FAILURE
        case Failed():
            return states.RETRY
    return None
