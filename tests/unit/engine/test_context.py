import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TypedDict
from uuid import UUID

import pytest

from flows.domain.errors import InvalidInputError, MisuseError, PromiseRejected
from flows.domain.promise import Kind, State
from flows.domain.retry import Constant, Exponential, Never
from flows.domain.values import MAX_BYTES
from flows.engine.decision import Failed, Interrupted, Rejected, Resolved, SetAside, Suspended
from flows.engine.shapes import dump_args
from tests.unit.engine.harness import BOOM, NOON, SECOND, Flow


@dataclass
class Item:
    name: str
    due: datetime


class Color(Enum):
    RED = "red"


def test_a_promise_is_settled_from_outside():
    def function(ctx):
        approval = yield from ctx.promise("approval", {"amount": 7}, timeout=60)
        return [approval.id, (yield from approval)]

    flow = Flow(function)
    assert flow.attempt() == Suspended(awaits=("p.0",))
    (call,) = flow.calls
    assert (call.kind, call.function, call.args, call.timeout) == (
        Kind.EXTERNAL,
        "approval",
        '[{"amount":7}]',
        60 * SECOND,
    )
    flow.settle("p.0", {"by": "me"})
    assert flow.attempt() == Resolved(value='["p.0",{"by":"me"}]')


def test_an_atomic_step_is_recorded_by_its_transaction():
    ran: list[int] = []

    def step():
        ran.append(1)
        return 5

    def function(ctx):
        return (yield from ctx.atomic(step))

    flow = Flow(function)
    assert flow.attempt() == Resolved(value="5")
    assert [(call.kind, call.state, call.value) for call in flow.calls] == [(Kind.RUN, State.RESOLVED, "5")]
    assert flow.attempt() == Resolved(value="5")
    assert ran == [1]


def test_a_database_that_goes_away_under_an_atomic_step_is_no_failure_of_the_step(monkeypatch):
    def commit_with(step):
        raise Interrupted("gone")

    flow = Flow(lambda ctx: (yield from ctx.atomic(lambda: 1)), retry=Never())
    monkeypatch.setattr(flow, "commit_with", commit_with)
    decision = flow.attempt()
    assert isinstance(decision, Failed)
    assert (decision.failures, flow.calls) == (0, [])


def test_an_atomic_step_cannot_be_async():
    async def step(): ...

    decision = Flow(lambda ctx: (yield from ctx.atomic(step))).attempt()
    assert isinstance(decision, Rejected)
    assert "make it a plain function" in decision.error["message"]


def test_time_and_chance_are_the_same_on_replay():
    seen = []

    def function(ctx):
        seen.append([(yield from ctx.now()), (yield from ctx.uuid()), (yield from ctx.random())])
        yield from ctx.rpc("child")

    flow = Flow(function)
    flow.stays_open = False
    flow.attempt()
    flow.clock += timedelta(days=1)
    flow.attempt()
    assert seen[0] == seen[1]
    now, uuid, number = seen[0]
    assert now == NOON
    assert isinstance(uuid, UUID)
    assert 0 <= number < 1


def test_sleep_until_a_moment():
    moment = NOON + timedelta(hours=1)

    def function(ctx):
        yield from ctx.sleep(moment)

    flow = Flow(function)
    assert flow.attempt() == Suspended(awaits=("p.0",))
    assert flow.calls[0].timeout == moment
    flow.clock = moment + SECOND
    flow.settle("p.0")
    assert flow.attempt() == Resolved(value="null")


@pytest.mark.parametrize(
    ("moment", "advice"),
    [(datetime(2030, 1, 1), "no time zone"), (NOON, "in the past"), (NOON - SECOND, "in the past")],  # noqa: DTZ001
)
def test_moments_that_nobody_can_wait_for_are_refused(moment, advice):
    flow = Flow(lambda ctx: (yield from ctx.sleep(moment)))
    decision = flow.attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["type"] == "InvalidInputError"
    assert advice in decision.error["message"]
    assert flow.calls == []


def test_no_handler_of_user_code_swallows_a_mismatch():
    def function(ctx):
        try:
            yield from ctx.sleep(NOON + SECOND)
        except Exception:
            return "swallowed"

    flow = Flow(lambda ctx: (yield from ctx.rpc("other")))
    flow.attempt()
    flow.function = function
    assert isinstance(flow.attempt(), SetAside)


def test_a_call_takes_its_options():
    def function(ctx):
        yield from ctx.rfi(
            "child",
            target="poll://uni@h/4711",
            timeout=NOON + timedelta(hours=2),
            retry=Constant(2, non_retryable=(LookupError,)),
            tags={"customer": "7"},
        )

    flow = Flow(function)
    flow.attempt()
    (call,) = flow.calls
    assert (call.group, call.addressee, call.timeout, call.tags) == (
        "h",
        "4711",
        NOON + timedelta(hours=2),
        {"customer": "7"},
    )
    assert call.retry == {"policy": "constant", "wait": 2.0, "max_attempts": 10, "non_retryable": ("LookupError",)}


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": datetime(2030, 1, 1)},  # noqa: DTZ001
        {"timeout": "soon"},
        {"tags": {"a": 1}},
        {"tags": "a"},
        {"retry": object},
        {"target": "poll://uni@h"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_bad_option_is_named(options):
    flow = Flow(lambda ctx: (yield from ctx.rpc("child", **options)))
    decision = flow.attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["type"] == "InvalidInputError"
    assert decision.error["message"].startswith(f"{next(iter(options))}: ")
    assert flow.calls == []


def test_the_calls_own_policy_replaces_the_functions():
    def function(ctx):
        raise LookupError

    flow = Flow(function, retry=Never(), own_retry={"policy": "constant", "wait": 2.0, "max_attempts": 2})
    decision = flow.attempt()
    assert isinstance(decision, Failed)
    assert decision.delay == 2 * SECOND


def test_what_is_not_retryable_is_final_at_once():
    class Declined(LookupError): ...

    def function(ctx):
        raise Declined

    assert isinstance(Flow(function, retry=Exponential(non_retryable=(LookupError,))).attempt(), Rejected)
    assert isinstance(Flow(function, retry=Exponential(non_retryable=("Declined",))).attempt(), Rejected)
    assert isinstance(Flow(function, retry=Exponential(non_retryable=(ValueError,))).attempt(), Failed)


def test_a_step_may_have_a_policy_of_its_own():
    def function(ctx):
        yield from ctx.run(lambda: 1 / 0, retry=Never())

    decision = Flow(function).attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["promises"] == ["p.0"]


def test_a_policy_that_is_broken_gives_up():
    class Broken:
        def delay(self, failures, error, promise_id):
            return 1 / 0

    assert isinstance(Flow(lambda ctx: 1 / 0, retry=Broken()).attempt(), Rejected)


def test_all_failures_of_a_gather_are_named():
    def function(ctx):
        yield from ctx.gather(ctx.rpc("a"), ctx.rpc("b"), ctx.rpc("c"))

    flow = Flow(function)
    flow.attempt()
    flow.settle("p.0", 1)
    flow.settle("p.1", state=State.REJECTED, error=BOOM)
    flow.settle("p.2", state=State.TIMEDOUT)
    decision = flow.attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["promises"] == ["p.1", "p.2"]


def test_a_failure_that_was_answered_and_raised_again_names_nobody():
    def function(ctx):
        try:
            yield from ctx.rpc("charge")
        except PromiseRejected:
            yield from ctx.run(lambda: "refunded")
            raise

    flow = Flow(function)
    flow.attempt()
    flow.settle("p.0", state=State.REJECTED, error=BOOM)
    decision = flow.attempt()
    assert isinstance(decision, Rejected)
    assert (decision.error["type"], decision.error.get("promises")) == ("PromiseRejected", None)


def test_the_log_is_silent_on_replay(caplog):
    caplog.set_level(logging.INFO, "g.f")

    def function(ctx):
        ctx.log.info("begin")
        future = yield from ctx.rfi("a")
        ctx.log.info("waiting")
        first = yield from future
        ctx.log.info("got %s", first)
        yield from ctx.rpc("b")
        ctx.log.info("end")

    flow = Flow(function)
    flow.attempt()
    flow.settle("p.0", 1)
    flow.attempt()
    flow.settle("p.1", 2)
    flow.attempt()
    assert caplog.messages == ["p: begin", "p: waiting", "p: got 1", "p: end"]


def test_the_deadline_is_that_of_the_call():
    assert Flow(lambda ctx: ctx.deadline.isoformat()).attempt() == Resolved(value='"2026-01-02T12:00:00+00:00"')


class TestPatched:
    def before(self, ctx):
        yield from ctx.rpc("a")
        yield from ctx.rpc("b")

    def after(self, ctx):
        yield from ctx.rpc("a")
        if ctx.patched("extra"):
            yield from ctx.rpc("extra")
        yield from ctx.rpc("b")

    def test_a_flow_that_has_passed_keeps_to_the_old_way(self):
        flow = Flow(self.before)
        flow.attempt()
        flow.settle("p.0")
        flow.attempt()
        flow.function = self.after
        flow.settle("p.1")
        assert flow.attempt() == Resolved(value="null")

    def test_a_flow_that_has_not_takes_the_new_way_for_ever(self):
        flow = Flow(self.before)
        flow.attempt()
        flow.settle("p.0")
        flow.function = self.after
        assert flow.attempt() == Suspended(awaits=("p.2",))
        flow.settle("p.2")
        assert flow.attempt() == Suspended(awaits=("p.3",))
        flow.settle("p.3")
        assert flow.attempt() == Resolved(value="null")

    def test_taking_it_away_too_early_is_a_mismatch(self):
        flow = Flow(self.after)
        flow.attempt()
        flow.settle("p.0")
        flow.attempt()
        flow.function = self.before
        assert isinstance(flow.attempt(), SetAside)


def test_a_context_is_of_no_use_after_its_attempt():
    kept = []

    def function(ctx):
        kept.append(ctx)
        yield from ctx.rpc("a")

    Flow(function).attempt()
    with pytest.raises(MisuseError, match="after its attempt had ended"):
        kept[0].rpc("b")


def test_clean_up_cannot_make_calls_when_an_attempt_ends():
    def function(ctx):
        try:
            yield from ctx.rpc("a")
        finally:
            yield from ctx.rpc("clean_up")

    flow = Flow(function)
    assert flow.attempt() == Suspended(awaits=("p.0",))
    assert [call.function for call in flow.calls] == ["a"]
    flow.settle("p.0")
    assert flow.attempt() == Suspended(awaits=("p.1",))


def test_a_function_that_makes_too_many_calls_is_told_so(monkeypatch):
    monkeypatch.setattr("flows.engine.history.MAX_CALLS", 2)

    def function(ctx):
        for _ in range(3):
            yield from ctx.run(int)

    decision = Flow(function).attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["message"].startswith("p makes more than 2 calls")


@pytest.mark.parametrize("size", [MAX_BYTES, MAX_BYTES // 2 + 1], ids=["ascii", "umlauts"])
def test_what_is_too_large_is_refused_by_its_name(size):
    def function(ctx):
        return ("x" if size == MAX_BYTES else "ü") * size

    decision = Flow(function).attempt()
    assert isinstance(decision, Rejected)
    assert decision.error["message"].startswith("result: is larger than 4194304 bytes")


@pytest.mark.parametrize(
    ("misuse", "advice"),
    [
        (lambda ctx: ctx.run(len("abc")), "without calling it"),
        (lambda ctx: ctx.run(generator), "generator function"),
        (lambda ctx: ctx.atomic(5), "without calling it"),
        (lambda ctx: ctx.run(len, retry=5), "must be a policy"),
        (lambda ctx: ctx.rpc(len), "made with @durable"),
        (lambda ctx: ctx.rpc(5), "made with @durable"),
        (lambda ctx: ctx.promise("two words"), "Python identifier"),
        (lambda ctx: ctx.promise("ok", {1}), "set is not JSON"),
    ],
)
def test_misuse_says_what_would_be_right(misuse, advice):
    flow = Flow(lambda ctx: (yield from misuse(ctx)))
    decision = flow.attempt()
    assert isinstance(decision, Rejected)
    assert advice in decision.error["message"]
    assert flow.calls == []


def generator():
    yield 1


class TestShapes:
    def test_arguments_and_results_come_as_annotated(self):
        seen = []

        def function(ctx, item: Item, color: Color, *pairs: tuple[int, str]) -> tuple[Item, ...]:
            seen.append((item, color, pairs))
            return (item,)

        stored = {"name": "x", "due": "2026-01-01T12:00:00Z"}
        decision = Flow(function, [stored, "red", [1, "a"]]).attempt()
        assert seen == [(Item("x", NOON), Color.RED, ((1, "a"),))]
        assert decision == Resolved(value='[{"name":"x","due":"2026-01-01T12:00:00Z"}]')

    def test_a_step_gives_the_same_at_once_and_on_replay(self):
        def step() -> Item:
            return Item("x", NOON)

        seen = []

        def function(ctx):
            seen.append((yield from ctx.run(step)))
            yield from ctx.rpc("child")

        flow = Flow(function)
        flow.stays_open = False
        flow.attempt()
        flow.attempt()
        assert seen == [Item("x", NOON)] * 2

    def test_an_argument_that_does_not_fit_is_named(self):
        def function(ctx, item: Item): ...

        decision = Flow(function, [{"name": "x"}]).attempt()
        assert isinstance(decision, Rejected)
        assert decision.error["message"] == "args[0]: does not fit its annotation: due: Field required"

    def test_a_result_that_is_not_as_annotated_is_refused(self):
        def function(ctx) -> Item:
            return 5  # type: ignore[return-value]  # that is the point

        decision = Flow(function).attempt()
        assert isinstance(decision, Rejected)
        assert decision.error["type"] == "NotJSONError"

    def test_plain_annotations_let_values_pass_as_they_are(self):
        def function(ctx, text: int, numbers: list[float]) -> dict[str, int | None]:
            return {"text": text, "numbers": numbers}  # type: ignore[dict-item]  # nobody checks

        assert Flow(function, ["1", [1]]).attempt() == Resolved(value='{"text":"1","numbers":[1]}')

    def test_arguments_have_an_order(self):
        @dataclass
        class Bag:
            items: set[str]

        def function(ctx, bag: Bag): ...

        with pytest.raises(InvalidInputError, match="use a list, sorted"):
            dump_args(function, [Bag({"a", "b"})])

    def test_keys_that_json_has_not_are_described(self):
        def function(ctx) -> dict[int, str]:
            return {1: "a"}

        assert Flow(function).attempt() == Resolved(value='{"1":"a"}')

    def test_bytes_that_are_no_text_are_refused(self):
        def function(ctx) -> bytes:
            return b"\xff"

        decision = Flow(function).attempt()
        assert isinstance(decision, Rejected)
        assert decision.error["type"] == "NotJSONError"

    def test_what_pydantic_refuses_to_describe_must_be_json(self):
        class Old(TypedDict):
            a: int

        def function(ctx) -> Old:
            return {"a": 1}

        assert Flow(function).attempt() == Resolved(value='{"a":1}')

    def test_what_cannot_be_described_must_be_json(self):
        class Opaque: ...

        def function(ctx) -> Opaque:
            return Opaque()

        decision = Flow(function).attempt()
        assert isinstance(decision, Rejected)
        assert "Opaque is not JSON" in decision.error["message"]
