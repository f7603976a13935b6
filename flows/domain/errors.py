"""The one tree of errors. A class docstring is its default message. Knows nothing but the standard library."""

from typing import Any


class FlowsError(Exception):
    """Something is wrong with a durable flow."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class RegistrationError(FlowsError):
    """A durable function cannot be registered."""


class InvalidInputError(FlowsError, ValueError):
    """An input breaks a rule. ``field`` names the input, ``rule`` says what would be right."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.field, self.rule)


class UnknownFunctionError(InvalidInputError):
    """No durable function of that name is registered for the group."""


class UnknownVersionError(UnknownFunctionError):
    """The durable function is registered, but not in that version."""


class NotJSONError(InvalidInputError):
    """A value is not JSON. ``field`` is the path to the culprit, such as ``args[0].items[3]``."""


class PromiseConflict(FlowsError):
    """The promise exists already, for another call."""


class PromiseNotFound(FlowsError):
    """No promise has this id."""


class ResultTimeout(FlowsError, TimeoutError):
    """The promise is still pending; waiting for it stopped, the flow goes on."""


class TooManyWaitersError(ResultTimeout):
    """As many callers wait in this process as may. The flow goes on."""


class LimitError(FlowsError):
    """A flow is larger than flows may be."""


class MisuseError(FlowsError):
    """The context of a durable function was used in a way that cannot work."""


class NonDeterminismError(FlowsError):
    """On replay the function made another call than the one that is recorded."""


class PromiseFailed(FlowsError):
    """An awaited promise did not resolve. ``promise_id`` names it; ``also_failed`` the others of the same gather."""

    also_failed: tuple[str, ...] = ()
    # How many calls the function had made when this was raised in it.
    raised_at: int | None = None

    def __init__(self, promise_id: str, message: str) -> None:
        super().__init__(message)
        self.promise_id = promise_id


class PromiseRejected(PromiseFailed):
    """The function behind the promise failed for good.

    ``error`` is stored as ``{"type", "message", "traceback", "cause"}``; ``cause`` has the same shape or is null.
    ``promises`` in it are the ids of failed calls, if nobody answered their failure.
    """

    def __init__(self, promise_id: str, error: dict[str, Any]) -> None:
        super().__init__(promise_id, f"promise {promise_id} was rejected: {error['type']}: {error['message']}")
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.promise_id, self.error)


class PromiseTimedOut(PromiseFailed):
    """The promise was still pending at its deadline."""

    def __init__(self, promise_id: str) -> None:
        super().__init__(promise_id, f"promise {promise_id} was still pending at its deadline")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.promise_id,)


class PromiseCanceled(PromiseFailed):
    """The promise was canceled."""

    def __init__(self, promise_id: str) -> None:
        super().__init__(promise_id, f"promise {promise_id} was canceled")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.promise_id,)


class Refused(FlowsError):
    """What somebody outside said no to; its message is theirs."""


class AttemptFenced(BaseException):
    """The attempt lost its claim: whatever it would still write is refused.

    A ``BaseException``, so that no ``except Exception`` in user code swallows it.
    """
