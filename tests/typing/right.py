"""Right uses of the public names, and the types that are inferred for them. Read by mypy only, never imported."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type
from uuid import UUID, uuid4

from flows import (
    Constant,
    Context,
    Exponential,
    Flow,
    Future,
    Handle,
    Never,
    Operation,
    Promise,
    PromiseFailed,
    State,
    abegin_rpc,
    begin_rpc,
    cancel,
    durable,
    get,
    reject,
    resolve,
    retry,
    rpc,
)


@dataclass
class Order:
    id: str
    amount: int


@durable(group="shop")
def add(ctx: Context, a: int, b: int) -> int:
    return a + b


@durable(group="shop", retry=Never(), timeout=60, time_limit=30)
def label(ctx: Context, order: Order, size: str = "small", copies: int = 1) -> str:
    return f"{order.id} {size} {copies}"


@durable(group="shop", version=2, timeout=timedelta(hours=1))
def total(ctx: Context, *amounts: int) -> Flow[int]:
    value = yield from ctx.rpc(add, 1, 2)
    return value + sum(amounts)


@durable(group="shop", name="total_of")
async def total_async(ctx: Context, order: Order) -> int:
    return await ctx.rpc(add, order.amount, 2)


@durable(group="shop")
def note(ctx: Context, text: str) -> None: ...


@durable(group="shop")
def untyped_call(ctx: Context) -> Flow[None]:
    anything = yield from ctx.rpc("label", {"id": "o-1", "amount": 1}, target="shop")
    assert_type(anything, Any)
    later = yield from ctx.rfi("label", 1, 2, 3)
    assert_type(later, Future[Any])
    assert_type((yield from ctx.detached("label", 1)), str)


def charge(order: Order, amount: int = 0) -> UUID:
    return uuid4()


async def fetch(url: str) -> bytes | None: ...


@durable(group="shop")
def in_a_generator(ctx: Context, order: Order) -> Flow[str]:
    assert_type((yield from ctx.rpc(add, 1, 2)), int)
    assert_type((yield from ctx.rpc(total, 1, 2, 3)), int)
    assert_type((yield from ctx.rpc(total_async, order)), int)
    assert_type((yield from ctx.rpc(label, order)), str)
    assert_type((yield from ctx.rpc(label, order, "large")), str)
    assert_type((yield from ctx.rpc(label, order, "large", 3)), str)

    future = yield from ctx.rfi(add, 1, 2)
    assert_type(future, Future[int])
    assert_type(future.id, str)
    assert_type((yield from future), int)
    assert_type((yield from ctx.detached(note, "hello")), str)

    assert_type((yield from ctx.run(charge, order)), UUID)
    assert_type((yield from ctx.run(charge, order, 7, retry=Constant(2))), UUID)
    assert_type((yield from ctx.run(fetch, "https://example.org")), bytes | None)
    assert_type((yield from ctx.run(lambda: order)), Order)
    assert_type((yield from ctx.atomic(charge, order)), UUID)
    assert_type((yield from ctx.atomic(charge, order, 7, retry=Never())), UUID)

    assert_type((yield from ctx.now()), datetime)
    assert_type((yield from ctx.uuid()), UUID)
    assert_type((yield from ctx.random()), float)
    yield from ctx.sleep(2.5)
    yield from ctx.sleep(timedelta(days=1))
    yield from ctx.sleep(datetime(2030, 1, 1, tzinfo=UTC))
    assert_type(ctx.sleep(1), Operation[None])

    approval = yield from ctx.promise("approval", {"amount": 1}, timeout=timedelta(days=2), tags={"by": "boss"})
    assert_type(approval, Future[Any])
    assert_type(approval.id, str)
    assert_type((yield from approval), Any)

    assert_type(ctx.id, str)
    assert_type(ctx.attempt, int)
    assert_type(ctx.deadline, datetime)
    assert_type(ctx.patched("charge-vat"), bool)
    ctx.log.info("charged %s", order.id)
    return order.id


@durable(group="shop")
def several_at_once(ctx: Context, order: Order) -> Flow[None]:
    pair = yield from ctx.gather(ctx.rpc(add, 1, 2), ctx.rpc(label, order))
    assert_type(pair, tuple[int, str])
    three = yield from ctx.gather(ctx.rpc(add, 1, 2), ctx.sleep(1), ctx.run(charge, order))
    assert_type(three, tuple[int, None, UUID])
    many = yield from ctx.gather(*(ctx.rpc(add, 1, n) for n in range(10)))
    assert_type(many, tuple[int, ...])
    futures: list[Future[int]] = []
    for n in range(10):
        futures.append((yield from ctx.rfi(add, 1, n)))  # noqa: PERF401 - no `yield from` in a comprehension
    assert_type((yield from ctx.gather(*futures)), tuple[int, ...])

    assert_type((yield from ctx.race(ctx.rpc(add, 1, 2), ctx.rpc(add, 3, 4))), int)
    assert_type((yield from ctx.race(ctx.rpc(label, order), ctx.sleep(1))), str | None)
    assert_type((yield from ctx.race(ctx.rpc(add, 1, 2), ctx.rpc(label, order), cancel_losers=False)), int | str)
    assert_type((yield from ctx.race(*futures)), int)
    nested = ctx.race(ctx.gather(ctx.rpc(add, 1, 2), ctx.rpc(add, 3, 4)), ctx.sleep(60))
    assert_type((yield from nested), tuple[int, int] | None)


@durable(group="shop")
async def in_an_async_def(ctx: Context, order: Order) -> str:
    assert_type(await ctx.rpc(add, 1, 2), int)
    assert_type(await ctx.rpc(total, 1), int)
    assert_type(await ctx.rpc(total_async, order), int)
    future = await ctx.rfi(label, order)
    assert_type(future, Future[str])
    assert_type(await future, str)
    assert_type(await ctx.run(fetch, "https://example.org"), bytes | None)
    assert_type(await ctx.atomic(charge, order), UUID)
    assert_type(await ctx.gather(ctx.rpc(add, 1, 2), future), tuple[int, str])
    futures = [await ctx.rfi(add, 1, n) for n in range(10)]
    assert_type(await ctx.gather(*futures), tuple[int, ...])
    assert_type(await ctx.race(future, ctx.sleep(8)), str | None)
    approval = await ctx.promise("approval")
    assert_type(await approval, Any)
    assert_type(await ctx.now(), datetime)
    assert_type(await ctx.uuid(), UUID)
    assert_type(await ctx.random(), float)
    try:
        await ctx.rpc(note, "bye")
    except PromiseFailed as failure:
        return failure.promise_id
    return order.id


@durable(group="shop")
def with_options(ctx: Context) -> Flow[int]:
    policy = Exponential(
        initial=0.1, maximum=timedelta(minutes=1), max_attempts=3, non_retryable=(KeyError, "Declined")
    )
    return (
        yield from ctx.rpc(
            add,
            1,
            2,
            target="poll://uni@shop/4711",
            timeout=datetime(2030, 1, 1, tzinfo=UTC),
            retry=policy,
            tags={"customer": "7"},
        )
    )


class Slowly:
    """A policy of one's own."""

    def delay(self, failures: int, error: BaseException, promise_id: str) -> float | None:
        return 3.0 if failures < 5 else None


@durable(group="shop", retry=Slowly())
def stubborn(ctx: Context) -> None: ...


def a_caller(order: Order) -> None:
    assert_type(begin_rpc("o-1", add, 1, 2), Handle[int])
    assert_type(begin_rpc("o-2", total, 1), Handle[int])
    assert_type(begin_rpc("o-3", total_async, order), Handle[int])
    assert_type(begin_rpc("o-4", label, order), Handle[str])
    assert_type(begin_rpc("o-5", label, order, "large", retry=Never(), tags={"a": "b"}, timeout=5), Handle[str])
    assert_type(begin_rpc("o-6", "label", {"id": "o"}, target="shop"), Handle[Any])
    assert_type(begin_rpc("o-1", add, 1, 2).result(timeout=30), int)
    assert_type(begin_rpc("o-7", note, "text").result(), None)
    assert_type(begin_rpc("o-1", add, 1, 2).state, State)
    assert_type(rpc("o-1", add, 1, 2), int)
    assert_type(rpc("o-8", "label", 1, target="shop"), Any)
    assert_type(Handle[int]("o-1").result(), int)
    assert_type(get("o-1"), Promise)
    assert_type(resolve("o-1.0", {"by": "boss"}), bool)
    assert_type(reject("o-1.0", "too expensive"), bool)
    assert_type(reject("o-1.0", ValueError("too expensive")), bool)
    assert_type(cancel("o-1"), int)
    assert_type(retry("o-1"), bool)


async def an_async_caller(order: Order) -> None:
    assert_type(await abegin_rpc("o-1", add, 1, 2), Handle[int])
    assert_type(await abegin_rpc("o-4", label, order), Handle[str])
    assert_type(await (await abegin_rpc("o-1", add, 1, 2)).aresult(timeout=30), int)


def an_operation_is_an_awaitable(ctx: Context) -> Awaitable[int]:
    return ctx.rpc(add, 1, 2)


def a_helper(ctx: Context, amount: int) -> Flow[int]:
    return (yield from ctx.rpc(add, amount, 1))


def a_decorated_function_is_still_callable(ctx: Context) -> Callable[..., object]:
    add(ctx, 1, 2)
    add(ctx, a=1, b=2)
    return add


@durable(group="shop")
def uses_a_helper(ctx: Context) -> Flow[int]:
    value = yield from a_helper(ctx, 1)
    assert_type(value, int)
    return value
