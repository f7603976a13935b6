"""Durable request flows for Django and Celery. These are the public names; none loads a model before it is used."""

from typing import TYPE_CHECKING, Any

from flows.domain.errors import (
    FlowsError,
    InvalidInputError,
    LimitError,
    MisuseError,
    NonDeterminismError,
    NotJSONError,
    PromiseCanceled,
    PromiseConflict,
    PromiseFailed,
    PromiseNotFound,
    PromiseRejected,
    PromiseTimedOut,
    RegistrationError,
    ResultTimeout,
    TooManyWaitersError,
    UnknownFunctionError,
    UnknownVersionError,
)
from flows.domain.promise import Promise, State
from flows.domain.retry import Constant, Exponential, Never
from flows.engine.context import Context, Flow
from flows.engine.operation import Future, Operation
from flows.engine.registry import durable

if TYPE_CHECKING:
    from flows.handle import Handle
    from flows.operations import (
        abegin_rpc,
        begin_rpc,
        cancel,
        get,
        purge,
        purge_tree,
        reject,
        release,
        resolve,
        retry,
        rpc,
        run_again,
    )

__all__ = [
    "Constant",
    "Context",
    "Exponential",
    "Flow",
    "FlowsError",
    "Future",
    "Handle",
    "InvalidInputError",
    "LimitError",
    "MisuseError",
    "Never",
    "NonDeterminismError",
    "NotJSONError",
    "Operation",
    "Promise",
    "PromiseCanceled",
    "PromiseConflict",
    "PromiseFailed",
    "PromiseNotFound",
    "PromiseRejected",
    "PromiseTimedOut",
    "RegistrationError",
    "ResultTimeout",
    "State",
    "TooManyWaitersError",
    "UnknownFunctionError",
    "UnknownVersionError",
    "abegin_rpc",
    "begin_rpc",
    "cancel",
    "durable",
    "get",
    "purge",
    "purge_tree",
    "reject",
    "release",
    "resolve",
    "retry",
    "rpc",
    "run_again",
]


def __getattr__(name: str) -> Any:
    # These reach the database and Celery, which need Django's settings: loaded when first asked for.
    if name in __all__:
        from flows import operations

        return getattr(operations, name)
    raise AttributeError(f"module 'flows' has no attribute {name!r}")
