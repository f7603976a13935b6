"""Wrong uses of the public names, each with the error that mypy must find there. Read by mypy only, never imported."""

from dataclasses import dataclass
from datetime import timedelta

from flows import Constant, Context, Exponential, Flow, Future, Handle, Never, begin_rpc, durable, reject, rpc


@dataclass
class Order:
    id: str
    amount: int


@durable(group="shop")
def add(ctx: Context, a: int, b: int) -> int:
    return a + b


@durable(group="shop")
def label(ctx: Context, order: Order, size: str = "small") -> str:
    return f"{order.id} {size}"


def plain(order: Order, amount: int = 0) -> int:
    return amount


async def fetch(url: str) -> bytes:
    return b""


@durable(group="shop")
def arguments(ctx: Context, order: Order) -> Flow[None]:
    yield from ctx.rpc(add, 1, "2")  # E: arg-type call-arg
    yield from ctx.rpc(add, 1)  # E: arg-type
    yield from ctx.rpc(add, 1, 2, 3)  # E: arg-type call-arg
    yield from ctx.rpc(add, a=1, b=2)  # E: call-overload
    yield from ctx.rpc(label)  # E: arg-type call-arg
    yield from ctx.rpc(label, {"id": "o-1", "amount": 1})  # E: arg-type
    yield from ctx.rpc(label, order, 7)  # E: arg-type call-arg
    yield from ctx.rfi(add, "1", 2)  # E: arg-type call-arg unused-awaitable
    yield from ctx.detached(add, 1)  # E: arg-type
    yield from ctx.run(plain, "o-1")  # E: arg-type
    yield from ctx.run(plain)  # E: arg-type call-arg
    yield from ctx.run(fetch, 7)  # E: arg-type
    yield from ctx.atomic(plain, order, "7")  # E: arg-type


@durable(group="shop")
def results(ctx: Context, order: Order) -> Flow[int]:
    text: str = yield from ctx.rpc(add, 1, 2)  # E: assignment
    later: Future[str] = yield from ctx.rfi(add, 1, 2)  # E: assignment
    number: int = yield from ctx.detached(add, 1, 2)  # E: assignment
    both: tuple[str, str] = yield from ctx.gather(ctx.rpc(add, 1, 2), ctx.rpc(label, order))  # E: assignment
    first: str = yield from ctx.race(ctx.rpc(label, order), ctx.sleep(1))  # E: assignment
    future = yield from ctx.rfi(add, 1, 2)
    total = future + 1  # E: operator
    call = ctx.rpc(add, 1, 2) + 1  # E: operator
    if ctx.patched(7):  # E: arg-type
        return text, later, number, both, first, total, call  # E: return-value
    return "three"  # E: return-value


@durable(group="shop")
async def forgotten(ctx: Context) -> int:
    ctx.rpc(add, 1, 2)  # E: unused-awaitable
    await ctx.sleep  # E: misc
    return ctx.rpc(add, 1, 2)  # E: return-value


@durable(group="shop")
def functions(ctx: Context, order: Order) -> Flow[None]:
    yield from ctx.rpc(plain, order)  # E: arg-type
    yield from ctx.rfi(plain, order)  # E: arg-type unused-awaitable
    yield from ctx.rpc(add(ctx, 1, 2))  # E: call-overload
    yield from ctx.run(plain(order))  # E: call-overload
    yield from ctx.atomic(plain(order))  # E: arg-type
    yield from ctx.gather(plain, ctx.rpc(add, 1, 2))  # E: call-overload
    yield from ctx.gather(1, 2)  # E: call-overload
    yield from ctx.gather([ctx.rpc(add, 1, 2)])  # E: call-overload
    yield from ctx.race(add, add)  # E: call-overload
    yield from ctx.race(ctx.rpc(add, 1, 2), 7)  # E: call-overload


@durable(group="shop")
def options(ctx: Context) -> Flow[None]:
    yield from ctx.sleep("1 s")  # E: arg-type
    yield from ctx.rpc(add, 1, 2, timeout="1 h")  # E: call-arg call-overload
    yield from ctx.rpc(add, 1, 2, retry=3)  # E: call-arg call-overload
    yield from ctx.rpc(add, 1, 2, tags={"customer": 7})  # E: call-arg dict-item
    yield from ctx.rpc(add, 1, 2, tags=["customer"])  # E: call-arg call-overload
    yield from ctx.rpc(add, 1, 2, target=7)  # E: call-arg call-overload
    yield from ctx.rpc(add, 1, 2, colour="red")  # E: call-overload
    yield from ctx.rpc("add", 1, 2, colour="red")  # E: call-overload
    yield from ctx.run(fetch, "https://example.org", timeout=5)  # E: call-overload
    yield from ctx.promise("approval", tags={"customer": 7})  # E: dict-item unused-awaitable
    yield from ctx.promise("approval", timeout="2 days")  # E: arg-type unused-awaitable
    yield from ctx.race(ctx.sleep(1), ctx.sleep(2), cancel_losers="no")  # E: call-overload


@durable  # E: arg-type call-arg
def without_a_group(ctx: Context) -> None: ...


@durable(group="shop", timeout="1 h")  # E: arg-type
def with_a_text_as_timeout(ctx: Context) -> None: ...


@durable(group="shop", version="2")  # E: arg-type
def with_a_text_as_version(ctx: Context) -> None: ...


@durable(group="shop", retry=Never)  # E: arg-type
def with_a_class_as_policy(ctx: Context) -> None: ...


@durable(group="shop")  # E: arg-type
def without_a_context() -> None: ...


@durable(group="shop")  # E: arg-type
def with_something_else_first(order: Order, ctx: Context) -> None: ...


def policies() -> None:
    Exponential(timedelta(seconds=1))  # E: call-arg
    Exponential(initial="1 s")  # E: arg-type
    Exponential(non_retryable=[LookupError])  # E: arg-type
    Exponential(non_retryable=(LookupError("x"),))  # E: arg-type
    Constant()  # E: call-arg
    Never(3)  # E: call-arg


def a_caller(order: Order) -> None:
    begin_rpc("o-1", add, 1)  # E: arg-type
    begin_rpc("o-1", add, 1, "2")  # E: arg-type call-arg
    begin_rpc("o-1", plain, order)  # E: arg-type
    begin_rpc(1, add, 1, 2)  # E: call-overload
    begin_rpc("o-1", add, 1, 2, timeouts=5)  # E: call-overload
    begin_rpc("o-1", add, 1, 2, timeout="soon")  # E: call-arg call-overload
    begin_rpc("o-1", "add", 1, 2, tags={"customer": 7})  # E: dict-item
    text: str = begin_rpc("o-1", add, 1, 2).result()  # E: assignment
    handle: Handle[str] = begin_rpc("o-1", add, 1, 2)  # E: arg-type call-arg
    number: int = rpc("o-1", label, order)  # E: assignment
    handle.result("30 s")  # E: arg-type
    reject(text, number)  # E: arg-type
