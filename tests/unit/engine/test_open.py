"""A function that waits stays open and goes on from there: only where a replay would come to the same place."""

from contextlib import contextmanager, nullcontext

import pytest

from flows.domain.errors import AttemptFenced, PromiseRejected
from flows.domain.promise import State
from flows.engine.blocks import has_open_block
from flows.engine.decision import Resolved, Suspended
from flows.engine.replay import Runner
from tests.unit.engine.harness import BOOM, Flow


@pytest.fixture
def entered():
    return []


@pytest.fixture
def flow(entered, stays_open):
    def function(ctx):
        entered.append("top")
        first = yield from ctx.rpc("child")
        entered.append("after the first")
        second = yield from ctx.rpc("child")
        return first + second

    return Flow(function)


def suspend_twice(flow):
    flow.attempt()
    flow.settle("p.0", 1)
    assert flow.attempt() == Suspended(awaits=("p.1",))
    flow.settle("p.1", 2)


def test_the_next_attempt_goes_on_where_the_function_waits(flow, entered, stays_open):
    suspend_twice(flow)
    assert flow.attempt() == Resolved(value="3")
    replayed = ["top", "top", "after the first", "top", "after the first"]
    assert entered == (["top", "after the first"] if stays_open else replayed)


def test_an_attempt_whose_calls_were_never_written_is_replayed(flow, entered):
    flow.attempt()
    flow.settle("p.0", 1)
    flow.attempt()
    del flow.checkpoints["p.1"]
    entered.clear()
    assert flow.attempt() == Suspended(awaits=("p.1",))
    assert (entered[0], [call.id for call in flow.calls]) == ("top", ["p.1"])


def test_an_attempt_in_between_is_replayed(flow, entered):
    suspend_twice(flow)
    flow.attempts += 1
    entered.clear()
    assert flow.attempt() == Resolved(value="3")
    assert entered[0] == "top"


def test_a_promise_of_the_same_id_with_other_steps_is_replayed(entered):
    def function(ctx):
        entered.append(step := (yield from ctx.run(lambda: 1)))
        yield from ctx.rpc("child")
        return step

    flow = Flow(function)
    flow.attempt()
    flow.checkpoints["p.0"] = flow.checkpoints["p.0"]._replace(value="2")
    flow.settle("p.1")
    assert flow.attempt() == Resolved(value="2")
    assert entered == [1, 2]


def test_a_failure_that_was_seen_and_was_taken_back_is_replayed(entered):
    def function(ctx):
        entered.append("top")
        try:
            yield from ctx.rpc("child")
        except PromiseRejected:
            entered.append("failed")
        yield from ctx.rpc("child")

    flow = Flow(function)
    flow.attempt()
    flow.settle("p.0", state=State.REJECTED, error=BOOM)
    flow.attempt()
    flow.settle("p.0")
    flow.settle("p.1")
    entered.clear()
    assert flow.attempt() == Resolved(value="null")
    assert entered == ["top"]


def test_another_promise_closes_the_function_that_waits(flow, entered, stays_open):
    suspend_twice(flow)
    other = Flow(lambda ctx: entered.clear())
    other.runner = flow.runner
    other.attempt()
    assert flow.attempt() == Resolved(value="3")
    assert entered[0] == "top"


@contextmanager
def noted(entered):
    entered.append("enter")
    try:
        yield
    finally:
        entered.append("leave")


def with_block(ctx, entered):
    with noted(entered):
        yield from ctx.rpc("child")


def try_block(ctx, entered):
    entered.append("enter")
    try:
        yield from ctx.rpc("child")
    finally:
        entered.append("leave")


async def async_with_block(ctx, entered):
    with noted(entered):
        await ctx.rpc("child")


def block_in_a_helper(ctx, entered):
    yield from with_block(ctx, entered)


async def block_in_an_async_helper(ctx, entered):
    await async_with_block(ctx, entered)


BLOCKS = [with_block, try_block, async_with_block, block_in_a_helper, block_in_an_async_helper]


@pytest.mark.parametrize("function", BLOCKS)
def test_a_function_with_an_open_block_is_closed_at_once(function, entered):
    """What it opens belongs to its thread, and whoever runs there next must not find it."""
    flow = Flow(lambda ctx: function(ctx, entered))
    flow.attempt()
    assert entered == ["enter", "leave"]
    assert flow.runner.open is None


def test_what_an_iterator_holds_open_is_left_before_another_attempt(entered):
    def function(ctx):
        def each():
            try:
                yield 1
            finally:
                entered.append("left")

        for _ in each():
            yield from ctx.rpc("child")

    flow = Flow(function)
    flow.attempt()
    other = Flow(lambda ctx: list(entered))
    other.runner = flow.runner
    assert other.attempt() == Resolved(value='["left"]')


def test_a_function_that_ends_or_fails_is_not_open(stays_open):
    runner = Runner()
    for function in (lambda ctx: 1, lambda ctx: 1 / 0):
        flow = Flow(function)
        flow.runner = runner
        flow.attempt()
        assert runner.open is None


def test_a_function_that_was_fenced_is_closed():
    def function(ctx):
        yield from ctx.rpc("child")

    flow = Flow(function)
    flow.record = lambda call: (_ for _ in ()).throw(AttemptFenced)  # type: ignore[method-assign]  # for the test
    with pytest.raises(AttemptFenced):
        flow.attempt()
    assert flow.runner.open is None


class Something:
    def __await__(self):
        return iter([1])


class TestOpenBlocks:
    """Of generators and coroutines outside of any attempt."""

    def wait(self, body):
        body.send(None)
        found = has_open_block(body)
        body.close()
        return found

    def test_none_outside_of_with_and_try(self):
        def function():
            with nullcontext():
                pass
            for _ in range(2):
                yield

        assert not self.wait(function())

    def test_none_in_an_await_alone(self):
        async def helper():
            await AYield()

        assert not self.wait(helper())

    def test_one_around_a_yield(self):
        def function():
            with nullcontext():
                yield

        assert self.wait(function())

    def test_one_in_an_exception_handler(self):
        def function():
            try:
                int("x")
            except ValueError:
                yield

        assert self.wait(function())

    def test_one_for_all_that_is_known_in_what_cannot_be_looked_into(self):
        async def function():
            await Something()

        assert self.wait(function())


class AYield:
    def __await__(self):
        yield
