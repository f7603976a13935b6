import asyncio

import pytest
from celery import current_app
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import flows
from flows.engine.registry import registry
from flows.store import sql
from flows.worker.drain import drain

exporter = InMemorySpanExporter()
# One for all tests: a tracer keeps the first provider that it meets.
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))


@pytest.fixture
def spans(worker, monkeypatch):
    """What has ended so far, by name, while a provider is configured."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    exporter.clear()

    def spans(*names):
        found = exporter.get_finished_spans()
        return [[span for span in found if span.name == name] for name in names]

    return spans


@pytest.fixture
def redefine(monkeypatch):
    """Have another body for service-c.baz."""

    def redefine(body):
        monkeypatch.setattr(registry, "_functions", dict(registry._functions))
        registry._functions["service-c", "baz"] = {}
        flows.durable(group="service-c", name="baz", retry=flows.Never())(body)

    return redefine


def run_chain(promise_id="p"):
    handle = flows.begin_rpc(promise_id, "foo", "x", target="service-a")
    for group in ("service-a", "service-b", "service-c", "service-b", "service-a"):
        drain(group)
    assert handle.state == "resolved"


def parent_ids(spans):
    return {span.parent.span_id if span.parent else None for span in spans}


def stored():
    return [row["trace"] for row in sql.rows("SELECT trace FROM flows_promise ORDER BY id")]


def test_a_flow_is_one_trace_across_services_and_resumes(spans):
    run_chain()
    (begun,), foos, bars, bazs = spans("begin_rpc foo", "service-a.foo", "service-b.bar", "service-c.baz")
    assert [len(foos), len(bars), len(bazs)] == [2, 2, 1]
    assert len({span.context.trace_id for span in exporter.get_finished_spans()}) == 1
    # Resumes are siblings of the first attempt; what it called hangs below the attempt that made the call.
    assert [parent_ids(each) for each in ([begun], foos, bars, bazs)] == [
        {None}, {begun.context.span_id}, {foos[0].context.span_id}, {bars[0].context.span_id}
    ]  # fmt: skip
    assert [span.attributes["flows.outcome"] for span in foos] == ["suspended", "resolved"]


def test_a_span_says_whose_attempt_it_is_and_holds_no_payload(spans):
    run_chain()
    span = spans("service-b.bar")[0][1]
    assert span.kind is SpanKind.CONSUMER
    assert span.attributes == {
        "flows.promise_id": "p.0",
        "flows.root_id": "p",
        "flows.attempt": 2,
        "messaging.destination.name": "service-b",
        "flows.outcome": "resolved",
    }


def test_a_flow_belongs_to_the_span_of_its_caller(spans):
    with trace.get_tracer("test").start_as_current_span("request") as request:
        asyncio.run(_begin_in_a_loop())
    drain("service-c")
    begun, (baz,) = spans("begin_rpc baz", "service-c.baz")
    assert begun == []
    assert baz.parent.span_id == request.get_span_context().span_id


async def _begin_in_a_loop():
    await flows.abegin_rpc("p", "baz", target="service-c")


def test_spans_of_user_code_hang_below_the_attempt(spans, redefine):
    def body(ctx):
        with trace.get_tracer("test").start_as_current_span("mine"):
            return 1

    redefine(body)
    flows.begin_rpc("p", "baz", target="service-c")
    drain("service-c")
    (mine,), (baz,) = spans("mine", "service-c.baz")
    assert mine.parent.span_id == baz.context.span_id


def test_a_failure_is_told_by_its_type_alone(spans, redefine):
    def body(ctx):
        raise ValueError("a payload")

    redefine(body)
    flows.begin_rpc("p", "baz", target="service-c")
    drain("service-c")
    ((span,),) = spans("service-c.baz")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert (span.attributes["flows.outcome"], span.attributes["error.type"]) == ("rejected", "ValueError")
    assert "a payload" not in span.to_json()


def test_a_call_that_is_refused_is_no_message_either(spans):
    flows.begin_rpc("p", "baz", target="service-c")
    with pytest.raises(flows.PromiseConflict):
        flows.begin_rpc("p", "foo", "a payload", target="service-a")
    ((span,),) = spans("begin_rpc foo")
    assert (span.events, span.status.description) == ((), None)


def test_an_attempt_does_not_hang_below_what_happens_to_be_current(spans, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr(trace, "_TRACER_PROVIDER", None)
        flows.begin_rpc("p", "baz", target="service-c")
    with trace.get_tracer("test").start_as_current_span("a message"):
        drain("service-c")
    assert parent_ids(spans("service-c.baz")[0]) == {None}


def test_local_steps_store_no_trace(spans, redefine):
    def body(ctx):
        return (yield from ctx.run(lambda: 1))

    redefine(body)
    flows.begin_rpc("p", "baz", target="service-c")
    drain("service-c")
    assert [bool(each) for each in stored()] == [True, False]


def test_an_attempt_that_is_canceled_meanwhile_is_fenced(spans, redefine):
    def body(ctx):
        flows.cancel(ctx.id)
        yield from ctx.run(lambda: 1)
        yield from ctx.atomic(lambda: 2)

    redefine(body)
    flows.begin_rpc("p", "baz", target="service-c")
    drain("service-c")
    assert [span.attributes["flows.outcome"] for span in spans("service-c.baz")[0]] == ["fenced"]


def test_an_attempt_that_a_message_names_has_its_span_too(spans):
    flows.begin_rpc("p", "baz", target="service-c")
    current_app.tasks["service-c.baz"].apply(task_id="p").get()
    (begun,), (baz,) = spans("begin_rpc baz", "service-c.baz")
    assert baz.parent.span_id == begun.context.span_id


def test_a_flow_that_runs_again_is_another_trace(spans):
    run_chain()
    flows.run_again("p", "p-again", from_step=1)
    drain("service-a")
    first, *_, again = spans("service-a.foo")[0]
    assert again.context.trace_id != first.context.trace_id
    assert again.parent.span_id == spans("begin_rpc foo")[0][1].context.span_id


def test_what_is_stored_goes_on_through_workers_that_do_not_trace(spans, monkeypatch):
    with monkeypatch.context() as without:
        flows.begin_rpc("p", "foo", "x", target="service-a")
        without.setattr(trace, "_TRACER_PROVIDER", None)
        drain("service-a")
    traces = stored()
    assert len(traces) == 2
    assert traces[0] == traces[1] is not None


@pytest.mark.usefixtures("worker")
def test_without_a_provider_nothing_is_stored():
    run_chain()
    assert stored() == [None] * 3
