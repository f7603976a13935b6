"""The durable functions that are measured beside the product's own await chain: they do as good as nothing."""

import time
from collections.abc import Generator
from typing import Any

from flows import Context, durable


@durable(group="service-b")
def leaf(ctx: Context) -> int:
    return 1


@durable(group="service-b")
def sleepy_leaf(ctx: Context, milliseconds: int) -> int:
    time.sleep(milliseconds / 1000)  # the work itself
    return 1


@durable(group="service-a")
def nap(ctx: Context, milliseconds: int) -> int:
    time.sleep(milliseconds / 1000)  # meant to be killed
    return 1


@durable(group="service-a")
def fan_out(ctx: Context, count: int) -> Generator[Any, Any, int]:
    values: tuple[int, ...] = yield from ctx.gather(*(ctx.rpc(leaf) for _ in range(count)))
    return sum(values)


@durable(group="service-a")
def sleepy_fan_out(ctx: Context, count: int, milliseconds: int) -> Generator[Any, Any, int]:
    values: tuple[int, ...] = yield from ctx.gather(*(ctx.rpc(sleepy_leaf, milliseconds) for _ in range(count)))
    return sum(values)


@durable(group="service-a")
def calls(ctx: Context, count: int) -> Generator[Any, Any, int]:
    total = 0
    for _ in range(count):
        total += yield from ctx.rpc(leaf)
    return total


@durable(group="service-a")
def steps(ctx: Context, count: int) -> Generator[Any, Any, int]:
    total = 0
    for _ in range(count):
        total += yield from ctx.run(_one)
    return total


def _one() -> int:
    return 1
