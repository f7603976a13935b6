from dataclasses import dataclass
from datetime import timedelta

from flows import Context, Flow, Never, PromiseFailed, PromiseRejected, durable
from tests.orders.models import pay


@dataclass
class Order:
    id: str
    items: list[str]
    amount: int


@durable(group="orders")
def fulfil(ctx: Context, order: Order) -> Flow[str]:
    approval = yield from ctx.promise("approval", {"amount": order.amount}, timeout=timedelta(days=2))
    try:
        yield from approval
    except PromiseFailed:  # rejected by somebody, or by nobody in time
        return "not approved"
    yield from ctx.atomic(pay, order.id, order.amount)
    try:
        parts = yield from ctx.gather(*(ctx.rpc(reserve, item) for item in order.items))
        return (yield from ctx.race(ctx.rpc(ship, order.id, list(parts)), ctx.sleep(timedelta(hours=8)))) or "late"
    except PromiseRejected as failure:
        yield from ctx.atomic(pay, order.id, -order.amount)
        return f"paid back: {failure.error['message']}"


@durable(group="suppliers", retry=Never())
def reserve(ctx: Context, item: str) -> str:
    if item == "unicorn":
        raise LookupError("no unicorn in stock")
    return f"one {item}"


@durable(group="suppliers")
def ship(ctx: Context, order_id: str, parts: list[str]) -> str:
    return f"{order_id} shipped: {', '.join(parts)}"
