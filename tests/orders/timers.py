"""What must happen at a time: each function waits for its time in its own way, and says when it went on."""

from datetime import timedelta

from flows import Constant, Context, Flow, PromiseTimedOut, durable


@durable(group="orders")
def doze(ctx: Context, seconds: float) -> Flow[str]:
    yield from ctx.sleep(seconds)
    return "awake"


@durable(group="orders")
def stumble(ctx: Context, seconds: float) -> Flow[str]:
    return (yield from ctx.rpc(fall_once, retry=Constant(seconds)))


@durable(group="suppliers")
def fall_once(ctx: Context) -> str:
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    return "up again"


@durable(group="orders")
def give_up(ctx: Context, seconds: float) -> Flow[str]:
    try:
        yield from ctx.rpc(wait_for_ever, timeout=timedelta(seconds=seconds))
    except PromiseTimedOut:
        return "gave up"
    return "came"


@durable(group="suppliers")
def wait_for_ever(ctx: Context) -> Flow[None]:
    answer = yield from ctx.promise("answer")
    yield from answer
