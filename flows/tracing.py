"""OpenTelemetry spans: one for each attempt, all of a flow in one trace, whose context is stored with its promises.

Nothing happens, and nothing is stored, in a process without ``opentelemetry-api`` or without a tracer provider. No span
holds a payload: of an error its type.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from flows.domain.promise import AttemptOutcome
from flows.engine.decision import Decision, Failed, Invocation, Rejected, Resolved, SetAside, Suspended

try:
    from opentelemetry import trace as api
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    _is_installed = False
else:
    _is_installed = True
    # Of the provider that the project configures, whenever it does.
    _tracer = api.get_tracer("flows")
    _traceparent = TraceContextTextMapPropagator()
    # Without the messages of errors, which may quote payloads.
    _span = partial(_tracer.start_as_current_span, record_exception=False, set_status_on_exception=False)
    # What stands where none is configured.
    _NO_PROVIDER = (api.ProxyTracerProvider, api.NoOpTracerProvider)

_OUTCOMES = {
    Resolved: AttemptOutcome.RESOLVED,
    Rejected: AttemptOutcome.REJECTED,
    Failed: AttemptOutcome.FAILED,
    Suspended: AttemptOutcome.SUSPENDED,
    SetAside: AttemptOutcome.ASIDE,
}


class AttemptSpan:
    """The span of an attempt, and its ``trace``, which the attempt's calls are stored with. May stand for none."""

    def __init__(self, span: "api.Span | None" = None, trace: str | None = None) -> None:
        self._span = span
        self.trace = trace

    def decided(self, decision: Decision) -> None:
        """Tell what the attempt came to; whether that is written is not known yet."""
        if self._span is None:
            return
        self._span.set_attribute("flows.outcome", _OUTCOMES[type(decision)].value)
        if isinstance(decision, Failed | Rejected):
            self._span.set_attribute("error.type", decision.error["type"])
            self._span.set_status(api.StatusCode.ERROR, decision.error["type"])

    def fenced(self) -> None:
        """Tell that the attempt has lost its claim."""
        if self._span is not None:
            self._span.set_attribute("flows.outcome", AttemptOutcome.FENCED.value)


_UNTRACED = nullcontext(AttemptSpan())
_NOTHING_TO_DO = nullcontext()


def carrier() -> str | None:
    """Return the current span as a W3C traceparent; None without one."""
    return _current() if _is_on() else None


def attempt(invocation: Invocation, trace: str | None) -> AbstractContextManager[AttemptSpan]:
    """Make a span of the attempt the current one: below ``trace``, the context stored with its promise."""
    return _attempt(invocation, trace) if _is_on() else _UNTRACED


def begin(function: str) -> AbstractContextManager[object]:
    """Make sure that there is a current span, for all attempts of a flow that begins to hang below."""
    if not _is_on() or api.get_current_span().get_span_context().is_valid:
        return _NOTHING_TO_DO
    return _span(f"begin_rpc {function}", kind=api.SpanKind.PRODUCER)


def _current() -> str | None:
    found: dict[str, str] = {}
    _traceparent.inject(found)
    return found.get("traceparent")


def _is_on() -> bool:
    return _is_installed and type(api.get_tracer_provider()) not in _NO_PROVIDER


@contextmanager
def _attempt(invocation: Invocation, trace: str | None) -> Iterator[AttemptSpan]:
    # An empty context if nothing is stored, never the current span: it is of the message that brought the worker here.
    stored = _traceparent.extract({"traceparent": trace} if trace else {})
    with _span(
        invocation.task_name,
        context=stored,
        kind=api.SpanKind.CONSUMER,
        attributes={
            "flows.promise_id": invocation.id,
            "flows.root_id": invocation.root_id,
            "flows.attempt": invocation.attempt,
            "messaging.destination.name": invocation.group,
        },
    ) as span:
        yield AttemptSpan(span, _current())
