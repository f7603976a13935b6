"""Drains a group: claims what is ready, many at once, and runs it, until nothing is ready nor becomes so at once.

Then any group that the node serves: one slot may run a whole chain of calls from group to group.

A drained attempt looks to Celery's signals, and to its events where they are on, like one that a message brought.
"""

import logging
import math
import time
from collections.abc import Collection, Sequence
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
from flows.worker.attempts import left_open, run_attempt
from flows.worker.events import Events
from flows.worker.ledger import ledger

log = logging.getLogger(__name__)

# A batch of claims is meant to take this long: short enough that nobody waits behind it while another slot is free.
BATCH_S = 0.010
MAX_BATCH = 100
# After this long a drain hands over to a message, so that other queues, rate limits and child recycling get their turn.
DRAIN_S = 1.0
# For so long a drain waits for the next call: a message would take longer to come than most flows take for a step.
LINGER_S = 0.250
# So often it looks meanwhile whether a message waits, which has its turn then.
LOOK_S = 0.050
# A drain that waits for less than this share of the time that it is busy is crowded.
CROWDED = 0.2


class Pace:
    """How many attempts of a group fit into one batch, and how fast new ones come, as measured."""

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._busy_s = 0.0
        self._waited_s = LOOK_S

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
    return pollers.clear([function.task_name for function in _drainable_in([group])])


def wake_if_slow(following: ReadyRef) -> None:
    """Wake workers for what is ready, too, before an attempt that it would wait for; not if these are quick.

    What is not drained has a message of its own.
    """
    is_drained = not following.addressee and any(f.name == following.function for f in _drainable_in([following.group]))
    if is_drained and _is_slow(following.group):
        _wake(following)


def _wake(following: ReadyRef) -> None:
    """Wake one more worker, or two if calls are slow: so those at work double, until a message waits, as all are."""
    is_for_all = not following.addressee
    wakes_two = is_for_all and _is_slow(following.group) and not pollers.has_messages([following.group])
    canvas.wake([following])
    if wakes_two:
        canvas.wake_another(following)


def _is_slow(group: str) -> bool:
    return _pace(group).batch_size() == 1


def attended(slots: int) -> list[str]:
    """Return the Celery tasks that need no further message on this node, which has so many ``slots``.

    All of them drain what the node serves, and a message waits in the group's queue already: the slot that ends next
    takes that, and looks. For the main process of a node.
    """
    try:
        names = [request.task.name for request in tuple(state.active_requests)]
    except RuntimeError:  # it changed while it was read: a slot has become free, perhaps
        return []
    drainable = {function.task_name: function.group for function in _drainable_in(process.served())}
    if sum(name in drainable for name in names) < slots:
        return []
    waiting = read_queues(process.served()).lengths
    return [name for name, group in drainable.items() if waiting.get(group)]


def drain(group: str, *, looks: bool = True, left: Sequence[ReadyRef] = ()) -> None:
    """Run what is ready in ``group`` until nothing is, nor becomes for a while in any that the node serves.

    For DRAIN_S at most; ends sooner if the node is stopping. If more is ready than this one takes at first it wakes
    others, which do the same. ``looks`` is False if nothing is ready to begin with; ``left`` is what is ready in other
    groups that this drain ``will_wait_for``, and no message was sent for.
    """
    _Drain(group, left).run(looks=looks)


def will_wait_for(group: str) -> list[str]:
    """Return the Celery tasks of other groups that a drain of ``group`` will wait for, once nothing is ready in it."""
    return [function.task_name for function in _drainable_in(process.served()) if function.group != group]


def _drainable_in(groups: Collection[str]) -> list[AnyFunction]:
    tasks = current_app.tasks
    return [f for f in registry if f.group in groups and canvas.is_drainable(f) and f.task_name in tasks]


def _pace(group: str) -> Pace:
    return _paces.setdefault(group, Pace())


class _Drain:
    def __init__(self, group: str, left: Sequence[ReadyRef]) -> None:
        groups = dict.fromkeys([group, *process.served()])
        self._by_task = {function.task_name: function for function in _drainable_in(groups)}
        # The registry itself: `current_app` is looked up anew, for microseconds, each time that it is used.
        self._tasks = current_app.tasks
        # Messages that wait have their turn now and then: calls that are handed over lead on, perhaps for ever.
        self._gives_way_at = time.monotonic() + LOOK_S if len(groups) > 1 else math.inf
        self._to_look: list[str] = []
        # One for each task that something is ready for, and no message was sent, as this drain is about to look for it,
        # or to wait for its token.
        self._left = {ref.task_name: ref for ref in left}
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
            self._end()
            raise
        self._end()

    def _end(self) -> None:
        self._is_over = True
        try:
            self._flush()
        finally:
            self._tell_left()

    def _run(self, *, looks: bool) -> None:
        since = time.monotonic()
        until = since + DRAIN_S
        has_woken = False
        while not process.is_stopping():
            if not looks:
                if not self._has_more(since, until):
                    return
                since = time.monotonic()
                has_woken = False
            claimed, following = claims.claim_ready(
                self._group, self._functions, self._pace.batch_size(), process.holder(), process.memory()
            )
            self._left = {name: ref for name, ref in self._left.items() if ref.group != self._group}
            self._is_over = time.monotonic() > until
            if following and not has_woken:
                has_woken = True
                _wake(following)
            elif following and self._is_over:
                canvas.wake([following])
            self._more_follows = following is not None and not self._is_over
            if claimed:
                self._run_batch(claimed)
            if not self._more_follows:
                self._flush()
            if self._is_over:
                return
            stays = any(ref.group == self._group for ref in self._left.values())
            looks = stays or following is not None
            if stays:
                has_woken = False

    def _has_more(self, since: float, until: float) -> bool:
        """Wait for what becomes ready, and turn to its group; return False if nothing does, or it is time to end."""
        began = time.monotonic()
        if not self._to_look and began < until:
            self._to_look = self._wait()
        if not self._to_look:
            return False
        if (group := self._to_look.pop(0)) != self._group:
            self._turn_to(group)
        elif not self._left and (gathers_s := self._pace.gathers_for(began - since, time.monotonic() - began)):
            time.sleep(gathers_s)
        return True

    def _turn_to(self, group: str) -> None:
        functions = [function for function in self._by_task.values() if function.group == group]
        self._group = group
        self._functions = [function.name for function in functions]
        self._task_names = [function.task_name for function in functions]
        self._other_names = self._by_task.keys() - self._task_names
        self._pace = _pace(group)

    def _wait(self) -> list[str]:
        """Return the groups to look in; none if for LINGER_S nothing became ready, or a message waits in a queue.

        With something left to tell it waits for LOOK_S only.
        """
        if time.monotonic() >= self._gives_way_at:
            self._gives_way_at = time.monotonic() + LOOK_S
            if self._has_messages():
                return []
        names, opened = list(self._by_task), left_open()
        keeps = (opened.invocation.id, opened.invocation.task_name) if opened else None
        until = time.monotonic() + (0 if self._left else LINGER_S)
        found = pollers.wait(names, LOOK_S, keeps)
        while not found and time.monotonic() < until and not process.is_stopping() and not self._has_messages():
            found = pollers.wait(names, LOOK_S, keeps)
        return list(dict.fromkeys(self._by_task[name].group for name in found))

    def _has_messages(self) -> bool:
        return pollers.has_messages(current_app.amqp.queues.consume_from)

    def _run_batch(self, claimed: list[Claim]) -> None:
        changes.claimed(claimed)
        self._ledger.enqueue(claimed)
        durations_s = []
        while not process.is_stopping() and (claim := self._ledger.begin_next()):
            self._tell_left()
            durations_s.append(self._run_one(claim))
        self._ledger.release()
        self._pace.measured(durations_s)

    def _run_one(self, claim: Claim) -> float:
        """Run an attempt as the current Celery task, between its two signals; return how many seconds it took."""
        began = time.monotonic()
        promise_id, task = claim.invocation.id, self._tasks[claim.invocation.task_name]
        call: dict[str, Any] = {"sender": task, "task_id": promise_id, "task": task, "args": (), "kwargs": {}}
        task.request_stack.push(_request(task, claim))
        _task_stack.push(task)
        signals.task_prerun.send(**call)
        state = None
        try:
            self._events.started(promise_id, task.name)
            decision = run_attempt(claim, self._ledger)
            took_s = time.monotonic() - began
            if decision is not None:
                self._keep(self._ledger.defer(decision, more_follows=self._more_follows, **self._takes()))
                _announce(task, claim, decision)
                self._events.ended(promise_id, decision, took_s)
                state = _state(decision)
        finally:
            signals.task_postrun.send(**call, retval=None, state=state)
            _task_stack.pop()
            task.pop_request()
        return took_s

    def _flush(self) -> None:
        """Commit, then tell who watches."""
        self._keep(self._ledger.flush(**self._takes()))
        self._events.publish()

    def _takes(self) -> dict[str, Collection[str]]:
        """Return which tasks this drain goes on to look for, and which it will wait for."""
        if self._is_over or process.is_stopping():
            return {}
        return {"stays_for": self._task_names, "waits_for": self._other_names}

    def _keep(self, left: Sequence[ReadyRef]) -> None:
        self._left |= {ref.task_name: ref for ref in left}

    def _tell_left(self) -> None:
        """Send messages for what was left: something else is run first, or this ends."""
        if self._left:
            canvas.wake(self._left.values())
            self._left = {}


def _request(task: "Task[Any, Any]", claim: Claim) -> Context:
    # Nothing of the message in hand: it is of another promise. Headers are given, or Celery looks for some in the rest.
    return Context(
        id=claim.invocation.id,
        task=task.name,
        args=(),
        kwargs={},
        headers={},
        hostname=process.node_name(),
        delivery_info={"routing_key": claim.invocation.group},
        root_id=claim.invocation.root_id,
        called_directly=False,
    )


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
