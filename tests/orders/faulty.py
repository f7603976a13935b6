"""Payments whose workers die: once, at one of the boundaries of an atomic step, or whenever the test has it so."""

import os
import signal
import time

from django.db import transaction

from flows import Context, Flow, durable
from flows.store import outcomes
from tests.orders.models import pay

BOUNDARIES = ["before the step", "in its transaction", "before the commit", "after the commit", "after the step"]


@durable(group="orders")
def pay_with_a_crash(ctx: Context, order: str, boundary: str) -> Flow[None]:
    at = boundary if ctx.attempt == 1 else ""
    if at == "before the step":
        die()
    yield from ctx.atomic(pay_and_die, order, at)
    if at == "after the step":
        die()


def pay_and_die(order: str, at: str) -> None:
    pay(order, 5)
    if at == "in its transaction":
        die()
    if at == "before the commit":
        outcomes.commit_calls = _and_die(outcomes.commit_calls)
    if at == "after the commit":
        transaction.on_commit(die)


@durable(group="orders")
def pay_in_parts(ctx: Context, order: str, parts: int) -> Flow[int]:
    pay(f"{order} begun", 0)  # against the rule that only steps write: it counts how often this runs from its top
    for _ in range(parts):
        yield from ctx.rpc(linger, 0)
        yield from ctx.atomic(pay, order, 1)
    return parts


@durable(group="suppliers")
def linger(ctx: Context, seconds: float) -> int:
    """Take longer than a node that stops has patience for, the first time."""
    if ctx.attempt == 1:
        time.sleep(seconds)
    return ctx.attempt


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _and_die(commit_calls):
    def commit_and_die(*args):
        assert commit_calls(*args)
        die()

    return commit_and_die
