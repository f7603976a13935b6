"""The durable functions of chaos: every shape of flow, in two groups that call each other.

All that they do is recorded in the diary, so that it can be said afterwards what was executed more than once.
"""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from chaos import diary
from flows import Constant, Context, Flow, Never, PromiseRejected, durable

# Meant to lose its race: nobody would wait for it.
FOR_EVER = timedelta(minutes=30)


class StillFailingError(Exception):
    """Not often enough yet."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Which execution this is: the promise and the attempt that it belongs to, and the step's name."""

    promise_id: str
    attempt: int
    step: str


def work(mark: Mark, value: int, seconds: float = 0.0) -> dict[str, Any]:
    """Take some time, and return ``value`` with the id of this very execution."""
    execution_id = diary.write_execution(mark.promise_id, mark.attempt, mark.step)
    time.sleep(seconds)  # the work itself
    return _done(execution_id, mark, value)


def book(mark: Mark, amount: int) -> dict[str, Any]:
    """Write an entry; for an atomic step."""
    from chaos.models import Entry

    execution_id = diary.write_execution(mark.promise_id, mark.attempt, mark.step)
    Entry.objects.create(promise=mark.promise_id, step=mark.step, amount=amount)
    return _done(execution_id, mark, amount)


def book_at_last(mark: Mark, amount: int, failures: int) -> dict[str, Any]:
    """Write an entry, and raise all the same, ``failures`` times; for an atomic step."""
    from chaos.models import Entry

    is_failing = diary.count(f"{mark.promise_id}-{mark.step}") <= failures
    execution_id = diary.write_execution(mark.promise_id, mark.attempt, mark.step, is_failing=is_failing)
    Entry.objects.create(promise=mark.promise_id, step=mark.step, amount=amount)
    if is_failing:
        raise StillFailingError
    return _done(execution_id, mark, amount)


def work_at_last(mark: Mark, value: int, failures: int) -> dict[str, Any]:
    """Raise ``failures`` times, then return ``value``."""
    is_failing = diary.count(f"{mark.promise_id}-{mark.step}") <= failures
    execution_id = diary.write_execution(mark.promise_id, mark.attempt, mark.step, is_failing=is_failing)
    if is_failing:
        raise StillFailingError
    return _done(execution_id, mark, value)


def refuse(mark: Mark) -> None:
    """Raise, always."""
    diary.write_execution(mark.promise_id, mark.attempt, mark.step, is_failing=True)
    raise ValueError(mark.step)


def _done(execution_id: str, mark: Mark, value: int) -> dict[str, Any]:
    diary.write_end(execution_id)
    return {"execution": execution_id, "step": mark.step, "value": value}


def _mark(ctx: Context, step: str) -> Mark:
    return Mark(ctx.id, ctx.attempt, step)


def _begin(ctx: Context, *, is_failing: bool = False) -> None:
    diary.write_execution(ctx.id, ctx.attempt, "", is_failing=is_failing)


@durable(group="north")
def ping(ctx: Context, depth: int, number: int) -> Flow[int]:
    """A chain of calls over both groups, ``depth`` of them below this one: ``number`` + 1 for each link."""
    _begin(ctx)
    done = yield from ctx.run(work, _mark(ctx, "add"), number + 1, 0.03)
    if not depth:
        return int(done["value"])
    return (yield from ctx.rpc(pong, depth - 1, int(done["value"])))


@durable(group="north")
def fan(ctx: Context, width: int, seconds: float) -> Flow[int]:
    """A gather of ``width`` calls: the sum of 0 to ``width`` - 1."""
    _begin(ctx)
    values = yield from ctx.gather(*(ctx.rpc(leaf, number, seconds) for number in range(width)))
    return sum(values)


@durable(group="north")
def tree(ctx: Context, depth: int, branches: int) -> Flow[int]:
    """Calls that call: how many there are, this one included. The last branch is awaited last, as a future."""
    _begin(ctx)
    if not depth:
        return (yield from ctx.rpc(leaf, 1, 0.0))
    future = yield from ctx.rfi(tree, depth - 1, branches)
    sizes = yield from ctx.gather(*(ctx.rpc(tree, depth - 1, branches) for _ in range(branches - 1)))
    last = yield from future
    return 1 + sum(sizes) + last


@durable(group="north")
def scatter(ctx: Context, count: int) -> Flow[int]:
    """Starts ``count`` calls that nobody awaits, and returns how many."""
    _begin(ctx)
    for number in range(count):
        yield from ctx.detached(deposit, number)
    done = yield from ctx.run(work, _mark(ctx, "count"), count)
    return int(done["value"])


@durable(group="north")
def steps(ctx: Context, count: int, seconds: float) -> Flow[int]:
    """Local steps one after another: the sum of 0 to ``count`` - 1."""
    _begin(ctx)
    total = 0
    for number in range(count):
        done = yield from ctx.run(work, _mark(ctx, f"step-{number}"), number, seconds)
        total += done["value"]
    return total


@durable(group="north")
async def nap(ctx: Context, naps: int, seconds: float) -> bool:
    """Sleeps, with a step after each sleep; True if none was shorter than it should be, by the database's clock."""
    _begin(ctx)
    for number in range(naps):
        began = await ctx.now()
        await ctx.sleep(seconds)
        ended = await ctx.now()
        if ended - began < timedelta(seconds=seconds):
            return False
        await ctx.run(work, _mark(ctx, f"awake-{number}"), number)
    return True


@durable(group="north")
def contest(ctx: Context, number: int) -> Flow[int]:
    """Races that a call wins against a long sleep, and a short sleep against a call: ``number`` + 1."""
    _begin(ctx)
    first = yield from ctx.race(ctx.rpc(leaf, number, 0.01), ctx.sleep(FOR_EVER))
    second = yield from ctx.race(ctx.rpc(linger), ctx.sleep(0.5))
    third = yield from ctx.race(ctx.rpc(linger), ctx.rpc(leaf, 1, 0.0), ctx.sleep(FOR_EVER))
    return (first or 0) + (1000 if second is not None else 0) + (third or 0)


@durable(group="north")
def approval(ctx: Context, answer: int | None) -> Flow[int]:
    """Waits for somebody outside: the answer, booked; or -1 if it is refused, which None asks for."""
    _begin(ctx)
    asked = yield from ctx.promise("approval", {"answer": answer}, timeout=FOR_EVER)
    try:
        told: int = yield from asked
    except PromiseRejected:
        told = -1
    yield from ctx.atomic(book, _mark(ctx, "book"), told)
    return told


@durable(group="north")
def stubborn(ctx: Context, failures: int) -> Flow[int]:
    """Calls and steps that fail ``failures`` times before they succeed: 3 in the end."""
    _begin(ctx)
    soon = Constant(0.2, max_attempts=50)
    called = yield from ctx.rpc(flaky, failures, retry=soon)
    worked = yield from ctx.run(work_at_last, _mark(ctx, "work"), 1, failures, retry=soon)
    booked = yield from ctx.atomic(book_at_last, _mark(ctx, "book"), 1, failures, retry=soon)
    return called + int(worked["value"]) + int(booked["value"])


@durable(group="north")
def forgiving(ctx: Context, number: int) -> Flow[str]:
    """Catches the failures of a call, of a step and of a gather, and goes on."""
    _begin(ctx)
    caught = []
    try:
        yield from ctx.rpc(broken, f"no {number}")
    except PromiseRejected as failure:
        caught.append(failure.error["message"])
    try:
        yield from ctx.run(refuse, _mark(ctx, "refuse"), retry=Never())
    except PromiseRejected as failure:
        caught.append(failure.error["message"])
    try:
        yield from ctx.gather(ctx.rpc(leaf, 1, 0.01), ctx.rpc(broken, "first"), ctx.rpc(broken, "second"))
    except PromiseRejected as failure:
        caught.append(failure.error["message"])
    return ", ".join(caught)


@durable(group="north", retry=Never())
def doomed(ctx: Context, message: str) -> Flow[int]:
    """Does not catch the failure of what it calls, and so fails of it."""
    _begin(ctx)
    yield from ctx.run(work, _mark(ctx, "before"), 1)
    return (yield from ctx.rpc(broken, message))


@durable(group="north")
async def everything(ctx: Context, width: int, amount: int) -> int:
    """A bit of all: steps, a fan-out over chains, a nap, a race, money, an approval and a detached call."""
    _begin(ctx)
    begun = await ctx.atomic(book, _mark(ctx, "reserve"), amount)
    chains = await ctx.gather(*(ctx.rpc(ping, 1, number) for number in range(width)))
    await ctx.sleep(0.3)
    asked = await ctx.promise("approval", {"answer": sum(chains)}, timeout=FOR_EVER)
    told = int(await ctx.race(asked, ctx.sleep(FOR_EVER)) or 0)
    await ctx.detached(deposit, amount)
    await ctx.atomic(book, _mark(ctx, "settle"), told)
    return int(begun["value"]) + told


@durable(group="south")
def pong(ctx: Context, depth: int, number: int) -> Flow[int]:
    """The other half of ``ping``; its step is atomic."""
    _begin(ctx)
    done = yield from ctx.atomic(book, _mark(ctx, "add"), number + 1)
    if not depth:
        return int(done["value"])
    return (yield from ctx.rpc(ping, depth - 1, int(done["value"])))


@durable(group="south")
def leaf(ctx: Context, number: int, seconds: float) -> Flow[int]:
    """One step."""
    _begin(ctx)
    done = yield from ctx.run(work, _mark(ctx, "work"), number, seconds)
    return int(done["value"])


@durable(group="south")
def deposit(ctx: Context, number: int) -> Flow[int]:
    """One atomic step."""
    _begin(ctx)
    done = yield from ctx.atomic(book, _mark(ctx, "book"), number)
    return int(done["value"])


@durable(group="south")
def ledger(ctx: Context, count: int) -> Flow[int]:
    """Atomic steps one after another, with local ones between them: the sum of 0 to ``count`` - 1."""
    _begin(ctx)
    total = 0
    for number in range(count):
        booked = yield from ctx.atomic(book, _mark(ctx, f"book-{number}"), number)
        done = yield from ctx.run(work, _mark(ctx, f"check-{number}"), int(booked["value"]), 0.02)
        total += done["value"]
    return total


@durable(group="south")
def linger(ctx: Context) -> Flow[int]:
    """Waits for what never comes: for losing races. It has a call below it, which is canceled with it."""
    _begin(ctx)
    future = yield from ctx.rfi(wait_for_ever)
    return (yield from future)


@durable(group="south")
def wait_for_ever(ctx: Context) -> Flow[int]:
    """The call below ``linger``."""
    _begin(ctx)
    yield from ctx.sleep(FOR_EVER)
    return 0


@durable(group="south")
def flaky(ctx: Context, failures: int) -> Flow[int]:
    """Raises from its body ``failures`` times, each time after a step that is done only once."""
    done = yield from ctx.run(work, _mark(ctx, "once"), 1)
    is_failing = diary.count(f"{ctx.id}-body") <= failures
    _begin(ctx, is_failing=is_failing)
    if is_failing:
        raise StillFailingError
    return int(done["value"])


@durable(group="south", retry=Never())
def broken(ctx: Context, message: str) -> int:
    """Fails for good at once."""
    _begin(ctx, is_failing=True)
    raise ValueError(message)
