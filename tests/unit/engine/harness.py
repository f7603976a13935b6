"""Runs a function attempt by attempt on checkpoints kept in memory: the engine alone, no database and no broker."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from flows.domain.promise import Kind, State
from flows.domain.retry import DEFAULT, RetryPolicy
from flows.domain.values import decode
from flows.engine.decision import Call, Checkpoint, Decision, Invocation
from flows.engine.registry import DurableFunction
from flows.engine.replay import replay


@dataclass
class Flow:
    """One promise and its children."""

    function: Callable[..., Any]
    args: list[Any] = field(default_factory=list)
    retry: RetryPolicy = DEFAULT
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    failures: int = 0
    attempts: int = 0

    def attempt(self) -> Decision:
        """Run one attempt; its calls become checkpoints."""
        self.attempts += 1
        self.calls = []
        durable = DurableFunction(group="g", name="f", function=self.function, retry=self.retry, timeout=None)
        decision = replay(durable, self._invocation(), self)
        for call in self.calls:
            self.checkpoints[call.id] = _checkpoint(call)
        return decision

    def record(self, call: Call) -> None:
        """Take a call, as a journal."""
        self.calls.append(call)

    def settle(self, promise_id: str, value: Any = None, *, state: State = State.RESOLVED, error: Any = None) -> None:
        """Settle a child."""
        self.checkpoints[promise_id] = replace(self.checkpoints[promise_id], state=state, value=value, error=error)

    def _invocation(self) -> Invocation:
        return Invocation(
            id="p",
            root_id="p",
            group="g",
            function="f",
            args=self.args,
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
        value=None if call.value is None else decode(call.value),
        error=call.error,
        failures=call.failures,
        is_awaited=False,
    )


BOOM = {"type": "ValueError", "message": "boom", "traceback": "", "cause": None}
SECOND = timedelta(seconds=1)
