"""Runs a function attempt by attempt on checkpoints kept in memory: the engine alone, no database and no broker."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from flows.domain.promise import Kind, State
from flows.domain.retry import DEFAULT, RetryPolicy
from flows.domain.values import encode
from flows.engine.decision import Call, Checkpoint, Decision, Invocation, Suspended
from flows.engine.registry import AnyFunction, DurableFunction
from flows.engine.replay import Runner

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Flow:
    """One promise and its children. If it ``stays_open`` attempts may go on from where the one before waits."""

    function: Callable[..., Any]
    args: list[Any] = field(default_factory=list)
    retry: RetryPolicy = DEFAULT
    own_retry: dict[str, Any] | None = None
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    failures: int = 0
    attempts: int = 0
    canceled: list[str] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    stays_open: bool = False
    runner: Runner = field(default_factory=Runner)
    clock: datetime = NOON

    def attempt(self) -> Decision:
        """Run one attempt; its calls become checkpoints."""
        self.attempts += 1
        self.calls = []
        durable: AnyFunction = DurableFunction(
            group="g", name="f", function=self.function, retry=self.retry, timeout=None
        )
        decision = self.runner.run(durable, self._invocation(), self)
        if not self.stays_open:
            self.runner.close()
        awaits = decision.awaits if isinstance(decision, Suspended) else ()
        for call in self.calls:
            self.checkpoints[call.id] = _checkpoint(call)
        for promise_id, known in self.checkpoints.items():
            self.checkpoints[promise_id] = known._replace(is_awaited=known.is_awaited or promise_id in awaits)
        return decision

    def record(self, call: Call) -> None:
        """Take a call, as a journal."""
        self.calls.append(call)

    def commit_with(self, step: Callable[[], Call]) -> Call:
        """Run an atomic step, as a journal."""
        self.calls.append(step())
        return self.calls[-1]

    def cancel(self, promise_ids: Iterable[str]) -> None:
        """Take calls to be canceled, as a journal."""
        self.canceled += promise_ids

    def before_user_code(self) -> None:
        """Count how often user code went on while calls were unwritten, as a journal."""
        self.told.append(len(self.calls))

    def now(self) -> datetime:
        """Tell the time, as a journal."""
        return self.clock

    def settle(
        self, promise_id: str, value: Any = None, *, state: State = State.RESOLVED, error: Any = None, at: float = 1.0
    ) -> None:
        """Settle a child."""
        settled = {"state": state, "value": encode(value, "value"), "error": error, "settled_at": at}
        self.checkpoints[promise_id] = self.checkpoints[promise_id]._replace(**settled)

    def _invocation(self) -> Invocation:
        return Invocation(
            id="p",
            root_id="p",
            group="g",
            addressee="",
            function="f",
            version=1,
            args=self.args,
            retry=self.own_retry,
            deadline_at=NOON + timedelta(days=1),
            failures=self.failures,
            attempt=self.attempts,
            checkpoints=tuple(self.checkpoints.values()),
        )


def _checkpoint(call: Call) -> Checkpoint:
    return Checkpoint(
        id=call.id,
        position=call.position,
        kind=Kind(call.kind),
        group=call.group,
        function=call.function,
        digest=call.digest,
        state=call.state,
        value=call.value,
        error=call.error,
        failures=call.failures,
        is_awaited=False,
        settled_at=None if call.state is State.PENDING else 0.5,
    )


BOOM = {"type": "ValueError", "message": "boom", "traceback": "", "cause": None}
SECOND = timedelta(seconds=1)
