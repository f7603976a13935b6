import asyncio
import math

import pytest

from flows.domain.errors import MisuseError, PromiseRejected, PromiseTimedOut
from flows.domain.promise import Kind, State
from flows.domain.retry import Constant, Never
from flows.engine.decision import Failed, Rejected, Resolved, SetAside, Suspended
from tests.unit.engine.harness import BOOM, SECOND, Flow


def generator_chain(ctx):
    value = yield from ctx.rpc("child", 1)
    return value + 1


async def async_chain(ctx):
    return await ctx.rpc("child", 1) + 1


@pytest.mark.parametrize("function", [generator_chain, async_chain])
def test_awaiting_a_new_call_suspends_and_its_value_resumes(function):
    flow = Flow(function)
    assert flow.attempt() == Suspended(awaits=("p.0",))
    assert [(call.id, call.kind, call.function, call.args) for call in flow.calls] == [
        ("p.0", Kind.RPC, "child", "[1]")
    ]
    flow.settle("p.0", 2)
    assert flow.attempt() == Resolved(value="3")
    assert flow.calls == []


def test_a_plain_function_settles_in_one_attempt():
    assert Flow(lambda ctx, a, b: [a, {"b": b}], [1, 2.0]).attempt() == Resolved(value='[1,{"b":2.0}]')


def test_positions_count_calls_of_every_kind_in_order():
    def function(ctx):
        yield from ctx.run(lambda: 1)
        yield from ctx.detached("other")
        yield from ctx.rfi("other")
        yield from ctx.sleep(5)

    flow = Flow(function)
    assert flow.attempt() == Suspended(awaits=("p.3",))
    assert [call.position for call in flow.calls] == [0, 1, 2, 3]
    assert [call.id for call in flow.calls if call.kind is not Kind.DETACHED] == ["p.0", "p.2", "p.3"]
    assert flow.calls[1].id.startswith("p.d")


def test_an_await_waits_for_exactly_what_is_awaited():
    def function(ctx):
        slow = yield from ctx.rfi("slow")
        fast = yield from ctx.rfi("fast")
        first = yield from fast
        return first + (yield from slow)

    flow = Flow(function)
    assert flow.attempt() == Suspended(awaits=("p.1",))
    flow.settle("p.1", 1)
    assert flow.attempt() == Suspended(awaits=("p.0",))
    flow.settle("p.0", 10)
    assert flow.attempt() == Resolved(value="11")


def test_gather_waits_for_all_and_keeps_their_order():
    def function(ctx):
        future = yield from ctx.rfi("a")
        return (yield from ctx.gather(ctx.rpc("b"), future))

    flow = Flow(function)
    assert flow.attempt() == Suspended(awaits=("p.1", "p.0"))
    flow.settle("p.1", "b")
    assert flow.attempt() == Suspended(awaits=("p.0",))
    flow.settle("p.0", "a")
    assert flow.attempt() == Resolved(value='["b","a"]')


def test_gather_raises_the_first_failure_once_all_have_settled():
    def function(ctx):
        yield from ctx.gather(ctx.rpc("a"), ctx.rpc("b"))

    flow = Flow(function)
    flow.attempt()
    flow.settle("p.0", state=State.REJECTED, error=BOOM)
    assert flow.attempt() == Suspended(awaits=("p.1",))
    flow.settle("p.1", state=State.TIMEDOUT)
    decision = flow.attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["type"] == "PromiseRejected"
    assert decision.error["cause"] == BOOM


def test_returning_waits_for_children_that_were_not_awaited():
    def function(ctx):
        yield from ctx.rfi("child")
        yield from ctx.detached("other")
        return "done"

    flow = Flow(function)
    assert flow.attempt() == Suspended(awaits=("p.0",))
    flow.settle("p.0", state=State.REJECTED, error=BOOM)
    assert flow.attempt() == Resolved(value='"done"')


def test_the_last_failure_waits_for_children_too():
    def function(ctx):
        yield from ctx.rfi("child")
        raise ValueError

    flow = Flow(function, retry=Never())
    assert flow.attempt() == Suspended(awaits=("p.0",))
    flow.settle("p.0", 1)
    assert isinstance(flow.attempt(), Rejected)


def test_raising_is_retried_as_the_policy_says_then_rejected():
    def function(ctx):
        raise ValueError("boom")

    flow = Flow(function, retry=Constant(SECOND, max_attempts=2))
    first = flow.attempt()
    assert isinstance(first, Failed)
    assert (first.failures, first.delay, first.error["message"]) == (1, SECOND, "boom")
    flow.failures = first.failures
    second = flow.attempt()
    assert isinstance(second, Rejected)
    assert second.error["type"] == "ValueError"
    assert "in function" in second.error["traceback"]


def test_a_rejected_child_that_is_not_caught_propagates_without_retry():
    flow = Flow(generator_chain)
    flow.attempt()
    flow.settle("p.0", state=State.REJECTED, error=BOOM)
    decision = flow.attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["message"] == "promise p.0 was rejected: ValueError: boom"


@pytest.mark.parametrize(
    ("state", "expected"), [(State.REJECTED, PromiseRejected), (State.TIMEDOUT, PromiseTimedOut)], ids=str
)
def test_a_failed_child_can_be_caught(state, expected):
    def function(ctx):
        try:
            yield from ctx.rpc("child")
        except expected as error:
            return error.promise_id

    flow = Flow(function)
    flow.attempt()
    flow.settle("p.0", state=state, error=BOOM)
    assert flow.attempt() == Resolved(value='"p.0"')


def test_a_local_step_runs_once():
    ran = []

    def step():
        ran.append(1)
        return 1, 2

    def function(ctx):
        value = yield from ctx.run(step)
        yield from ctx.rpc("child")
        return value

    flow = Flow(function)
    flow.attempt()
    flow.settle("p.1")
    assert flow.attempt() == Resolved(value="[1,2]")
    assert ran == [1]


def test_a_local_step_that_raises_is_retried_with_its_own_count_then_raised():
    def step():
        raise ValueError("boom")

    def function(ctx):
        try:
            yield from ctx.run(step)
        except PromiseRejected as error:
            return error.error["message"]

    flow = Flow(function, retry=Constant(SECOND, max_attempts=3))
    for failures in (1, 2):
        decision = flow.attempt()
        assert isinstance(decision, Failed)
        assert decision.failures == 0
        assert flow.checkpoints["p.0"].failures == failures
    assert flow.attempt() == Resolved(value='"boom"')
    assert flow.checkpoints["p.0"].state is State.REJECTED


def test_a_local_step_may_be_async():
    async def step(n):
        await asyncio.sleep(0)
        return n + 1

    async def function(ctx):
        return await ctx.run(step, 1)

    assert Flow(function).attempt() == Resolved(value="2")


def changed(ctx, now):
    if now:
        yield from ctx.rpc("other", 1)
    else:
        yield from ctx.rpc("child", 1)


def other_arguments(ctx, now):
    yield from ctx.rpc("child", 2 if now else 1)


def fewer_calls(ctx, now):
    if not now:
        yield from ctx.rpc("child", 1)


@pytest.mark.parametrize("function", [changed, other_arguments, fewer_calls])
def test_another_call_than_the_recorded_one_sets_the_promise_aside(function):
    flow = Flow(function, [False])
    flow.attempt()
    flow.settle("p.0", 1)
    flow.args = [True]
    decision = flow.attempt()
    assert isinstance(decision, SetAside)
    assert "call 0 of p is recorded as rpc g.child" in decision.note
    assert flow.calls == []


def test_user_code_cannot_swallow_a_mismatch():
    def function(ctx, name):
        try:
            yield from ctx.rpc(name)
        except Exception:
            return "swallowed"

    flow = Flow(function, ["child"])
    flow.attempt()
    flow.args = ["other"]
    assert isinstance(flow.attempt(), SetAside)


async def awaits_asyncio(ctx):
    await asyncio.sleep(0.01)


async def awaits_bare_sleep(ctx):
    await asyncio.sleep(0)


def yields_a_value(ctx):
    yield 1


def forgets_to_yield(ctx):
    ctx.rpc("child")
    yield from ctx.run(int)


def never_yields(ctx):
    ctx.run(int)


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (awaits_asyncio, "ctx.run"),
        (awaits_bare_sleep, "ctx.run"),
        (yields_a_value, "ctx.run"),
        (forgets_to_yield, "write `yield from ctx.rpc('child')`"),
        (never_yields, "write `yield from ctx.run('int')`"),
    ],
)
def test_misuse_is_rejected_with_what_to_write_instead(function, advice):
    decision = Flow(function).attempt()
    assert isinstance(decision, Rejected)
    assert isinstance(decision.exception, MisuseError)
    assert advice in decision.error["message"]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, object]}, "result.a[1]"),
        (math.nan, "result"),
        ({1: 2}, "result"),
        (b"x", "result"),
        ("a\x00b", "result"),
        ("\ud800", "result"),
    ],
    ids=repr,
)
def test_a_result_that_is_not_json_names_the_culprit(value, path):
    decision = Flow(lambda ctx: value).attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["type"] == "NotJSONError"
    assert decision.error["message"].startswith(f"{path}: ")


def test_sleep_is_a_timer_that_is_awaited():
    def function(ctx):
        yield from ctx.sleep(2.5)
        return "awake"

    flow = Flow(function)
    assert flow.attempt() == Suspended(awaits=("p.0",))
    assert flow.calls[0].kind is Kind.TIMER
    assert flow.calls[0].timeout == 2.5 * SECOND
    flow.settle("p.0")
    assert flow.attempt() == Resolved(value='"awake"')


def test_system_exit_in_user_code_is_a_failure_like_any_other():
    def function(ctx):
        raise SystemExit(1)

    assert isinstance(Flow(function).attempt(), Failed)


def test_the_pool_ending_its_process_is_no_outcome():
    def function(ctx):
        raise SystemExit(-241)  # what billiard raises on SIGTERM

    with pytest.raises(SystemExit):
        Flow(function).attempt()


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


def raises_unprintable(ctx):
    raise Unprintable


def raises_its_own_cause(ctx):
    error = ValueError()
    raise error from error


def raises_cancelled(ctx):
    raise asyncio.CancelledError


@pytest.mark.parametrize("function", [raises_unprintable, raises_its_own_cause, raises_cancelled])
def test_whatever_is_raised_is_the_outcome_of_the_attempt(function):
    decision = Flow(function).attempt()
    assert isinstance(decision, Failed)
    assert decision.error["type"] in ("Unprintable", "ValueError", "CancelledError")


def test_clean_up_that_raises_does_not_hide_a_suspension():
    def function(ctx):
        try:
            yield from ctx.rpc("child")
        finally:
            raise ValueError

    assert Flow(function).attempt() == Suspended(awaits=("p.0",))


@pytest.mark.parametrize("duration", [-1, math.inf, math.nan, "5", None], ids=str)
def test_a_sleep_that_nobody_can_wait_for_is_refused(duration):
    decision = Flow(lambda ctx: ctx.sleep(duration)).attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["message"].startswith("duration: must be")


def test_a_gather_that_is_never_awaited_is_rejected():
    def function(ctx):
        future = yield from ctx.rfi("child")
        ctx.gather(future)

    flow = Flow(function)
    flow.attempt()
    flow.settle("p.0", 1)
    decision = flow.attempt()
    assert isinstance(decision, Rejected)
    assert "write `yield from ctx.gather(…)`" in decision.error["message"]


def test_an_attempt_that_is_suspended_at_once_tells_the_journal_of_no_user_code():
    flow = Flow(generator_chain)
    flow.attempt()
    assert (len(flow.calls), flow.told) == (1, [])


def test_the_journal_knows_of_all_calls_that_wait_while_user_code_runs():
    seen = []

    def look():
        seen.append((len(flow.calls), flow.told[-1]))

    def function(ctx):
        future = yield from ctx.rfi("child")
        look()
        yield from ctx.gather(ctx.rpc("child"), ctx.run(look))
        yield from future

    flow = Flow(function)
    flow.attempt()
    assert seen == [(1, 1), (2, 2)]


def test_the_journal_knows_of_a_mark_while_user_code_runs():
    def function(ctx):
        ctx.patched("charge-vat")
        return list(flow.told)

    flow = Flow(function)
    assert flow.attempt() == Resolved(value="[1]")
