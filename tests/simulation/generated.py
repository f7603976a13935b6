"""Flows as data: a program is a list of statements, drawn by hypothesis and run by one durable function.

A program's outcome is determined, whatever the faults: what races differs by virtual days, and faults cost minutes.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from flows import Constant, Context, Flow, PromiseFailed, durable
from flows.engine.operation import Operation

GROUPS = ("sim-a", "sim-b")
Program = list[Any]


class Final(Exception):
    """Not tried again."""


class Effects:
    """What the steps of one run have done to the world outside."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.written: list[str] = []
        self._transactions: list[list[str]] = []

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep what is written inside if it ends well."""
        self._transactions.append([])
        try:
            yield
        except BaseException:
            self._transactions.pop()
            raise
        self.written += self._transactions.pop()

    def step(self, key: str) -> str:
        """Be done."""
        self.ran[key] += 1
        return key

    def write(self, key: str) -> str:
        """Be written in the transaction."""
        self._transactions[-1].append(key)
        return key

    def flaky(self, key: str, failures: int) -> str:
        """Fail so many times."""
        if self.failed[key] < failures:
            self.failed[key] += 1
            raise OSError(f"{key} is away")
        return key


effects = Effects()


def new_effects() -> Effects:
    """Begin a run."""
    global effects
    effects = Effects()
    return effects


def _step(ctx: Context, key: str) -> Flow[Any]:
    return (yield from ctx.run(effects.step, key))


def _atomic(ctx: Context, key: str) -> Flow[Any]:
    return (yield from ctx.atomic(effects.write, key))


def _values(ctx: Context, key: str) -> Flow[Any]:
    now, uuid, number = (yield from ctx.now()), (yield from ctx.uuid()), (yield from ctx.random())
    return [now.tzinfo is not None, uuid.version, 0 <= number < 1, ctx.patched("values")]


def _sleep(ctx: Context, key: str, days: int) -> Flow[Any]:
    return (yield from ctx.sleep(timedelta(days=days)))


def _flaky_step(ctx: Context, key: str, failures: int) -> Flow[Any]:
    return (yield from ctx.run(effects.flaky, key, failures, retry=Constant(1, max_attempts=9)))


def _doomed_step(ctx: Context, key: str) -> Flow[Any]:
    return (yield from ctx.run(effects.flaky, key, 99, retry=Constant(1, max_attempts=2)))


def _flaky(ctx: Context, key: str, failures: int) -> Flow[Any]:
    effects.flaky(key, failures)
    yield from ()


def _fail(ctx: Context, key: str, text: str) -> Flow[Any]:
    yield from ()
    raise Final(text)


def _signal(ctx: Context, key: str) -> Flow[Any]:
    future = yield from ctx.promise("signal", [key])
    return (yield from future)


def _call(ctx: Context, key: str, callee: Program) -> Flow[Any]:
    return (yield from _rpc(ctx, callee))


def _doomed_call(ctx: Context, key: str) -> Flow[Any]:
    return (yield from ctx.rpc(interpret, [["flaky", 99]], target=GROUPS[0], retry=Constant(1, max_attempts=2)))


def _late_call(ctx: Context, key: str, days: int) -> Flow[Any]:
    late = [["step"], ["sleep", days + 20], ["step"]]
    return (yield from ctx.rpc(interpret, late, timeout=timedelta(days=days)))


def _gather(ctx: Context, key: str, callees: list[Program]) -> Flow[Any]:
    return list((yield from ctx.gather(*(_rpc(ctx, callee) for callee in callees))))


def _futures(ctx: Context, key: str, callees: list[Program], awaited: list[int]) -> Flow[Any]:
    futures = []
    for callee in callees:
        futures += [(yield from ctx.rfi(interpret, callee, target=_group_of(callee)))]
    outcomes = []
    for index in awaited:
        outcomes += [(yield from futures[index])]
    return outcomes


def _detached(ctx: Context, key: str, callee: Program) -> Flow[Any]:
    return (yield from ctx.detached(interpret, callee, target=_group_of(callee)))


def _race(ctx: Context, key: str, first: Program, others: list[Program], cancel_losers: bool) -> Flow[Any]:  # noqa: FBT001
    calls = [_rpc(ctx, each) for each in [first, *others]]
    timer = ctx.sleep(timedelta(days=_days(first) + 10))
    return (yield from ctx.race(timer, *calls, cancel_losers=cancel_losers))


def _try(ctx: Context, key: str, statement: list[Any]) -> Flow[Any]:
    try:
        return (yield from _run(ctx, key, statement))
    except PromiseFailed as failure:
        return [type(failure).__name__, str(failure)]


STATEMENTS: dict[str, Callable[..., Flow[Any]]] = {
    "step": _step,
    "atomic": _atomic,
    "values": _values,
    "sleep": _sleep,
    "flaky step": _flaky_step,
    "doomed step": _doomed_step,
    "flaky": _flaky,
    "fail": _fail,
    "signal": _signal,
    "call": _call,
    "doomed call": _doomed_call,
    "late call": _late_call,
    "gather": _gather,
    "futures": _futures,
    "detached": _detached,
    "race": _race,
    "try": _try,
}


def _run(ctx: Context, key: str, statement: list[Any]) -> Flow[Any]:
    return (yield from STATEMENTS[statement[0]](ctx, key, *statement[1:]))


def _interpret(ctx: Context, program: Program) -> Flow[list[Any]]:
    outcomes = []
    for index, statement in enumerate(program):
        outcomes.append((yield from _run(ctx, f"{ctx.id}#{index}", statement)))
    return outcomes


_OPTIONS: dict[str, Any] = {
    "name": "interpret",
    "retry": Constant(1, max_attempts=500, non_retryable=(Final,)),
    "timeout": timedelta(days=36_000),
}
interpret, _ = (durable(group=group, **_OPTIONS)(_interpret) for group in GROUPS)


def _rpc(ctx: Context, callee: Program) -> Operation[list[Any]]:
    return ctx.rpc(interpret, callee, target=_group_of(callee))


def _group_of(program: Program) -> str:
    return GROUPS[len(program) % len(GROUPS)]


def _days(program: Program) -> int:
    """How long it takes at most: all its days, one after the other."""
    return sum(_days_of(*statement) for statement in program)


def _days_of(name: str, *rest: Any) -> int:
    match name, rest:
        case (("sleep" | "late call"), [days]):
            return int(days)
        case "call", [callee]:
            return _days(callee)
        case "try", [statement]:
            return _days_of(*statement)
        case ("gather", [callees]) | ("futures", [callees, _]):
            return sum(map(_days, callees))
        case "race", [first, others, _]:
            return _days(first) + 10 + sum(map(_days, others))
    return 0


_LEAVES = st.sampled_from(
    [["step"]] * 4
    + [["atomic"]] * 3
    + [["values"], ["sleep", 1], ["sleep", 3], ["signal"], ["flaky step", 2], ["flaky", 1], ["fail", "on purpose"]]
    + [["doomed step"], ["doomed call"], ["late call", 2]]
    + [["try", ["doomed step"]], ["try", ["doomed call"]], ["try", ["late call", 2]]]
)
_KINDS = st.sampled_from(["leaf", "leaf", "call", "gather", "futures", "detached", "race", "try"])


@st.composite
def programs(draw: Callable[[Any], Any], depth: int = 3) -> Program:
    """Draw a program whose calls nest at most ``depth`` deep."""
    return [_draw_statement(draw, depth) for _ in range(draw(st.integers(1, 3)))]


def _draw_statement(draw: Callable[[Any], Any], depth: int) -> list[Any]:
    def callees() -> list[Program]:
        return [draw(programs(depth - 1)) for _ in range(draw(st.integers(1, 3)))]

    match draw(_KINDS) if depth else "leaf":
        case "call" | "detached" as name:
            return [name, draw(programs(depth - 1))]
        case "gather":
            return ["gather", callees()]
        case "futures":
            started = callees()
            return ["futures", started, draw(st.lists(st.integers(0, len(started) - 1), unique=True))]
        case "race":
            first = draw(programs(depth - 1))
            losers = [
                [["sleep", _days(first) + 20 + 10 * n], *draw(programs(0))] for n in range(draw(st.integers(0, 2)))
            ]
            return ["race", first, losers, draw(st.booleans())]
        case "try":
            return ["try", _draw_statement(draw, depth - 1)]
    leaf: list[Any] = draw(_LEAVES)
    return leaf
