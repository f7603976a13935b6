"""A flow that shows everything a call tree can show."""

import os
import signal
import time

from flows import Constant, Context, Flow, Never, PromiseRejected, durable

SOON = Constant(0.4)


@durable(group="orders")
def deliver(ctx: Context, order: str, boxes: int) -> Flow[str]:
    yield from ctx.run(_price, order)
    yield from ctx.rpc(check_credit, order, retry=SOON)
    yield from ctx.detached(audit, order)
    picked = []
    for number in range(boxes):
        box = yield from ctx.rfi(pick, number)
        picked += [box]
    packed = yield from ctx.rfi(pack, order)
    for box in picked:
        try:
            yield from box
        except PromiseRejected:
            continue
    yield from packed
    approval = yield from ctx.promise("approval", {"order": order, "boxes": boxes}, tags={"asks": "sales"})
    yield from approval
    return (yield from ctx.rpc(ship_boxes, order))


@durable(group="suppliers")
def check_credit(ctx: Context, order: str) -> str:
    if ctx.attempt == 1:
        raise ConnectionError("the bank does not answer")
    return "good"


@durable(group="suppliers")
def audit(ctx: Context, order: str) -> Flow[str]:
    yield from ctx.sleep(0.2)
    return "noted"


@durable(group="suppliers", retry=Never())
def pick(ctx: Context, number: int) -> int:
    time.sleep(0.02)
    if number % 20 == 7:
        raise LookupError(f"shelf {number} is empty")
    return number


@durable(group="suppliers")
def pack(ctx: Context, order: str) -> Flow[str]:
    yield from ctx.run(_price, order)
    if ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    yield from ctx.rpc(label, order)
    return "packed"


@durable(group="orders")
def label(ctx: Context, order: str) -> str:
    time.sleep(0.05)
    return f"label for {order}"


@durable(group="suppliers")
def ship_boxes(ctx: Context, order: str) -> str:
    time.sleep(0.1)
    return f"{order} shipped"


def _price(order: str) -> int:
    return 5 * len(order)
