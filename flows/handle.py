"""A caller's view of one promise."""

import asyncio
from typing import Generic, TypeVar

from django.db import transaction

from flows.conf import settings
from flows.domain.errors import MisuseError, ResultTimeout
from flows.domain.promise import Promise, State
from flows.engine.shapes import PLAIN, Shape
from flows.listener import listener
from flows.store import promises

R_co = TypeVar("R_co", covariant=True)


class Handle(Generic[R_co]):
    """One promise, by its id. Holds no connection and no result; make as many as you like, in any process."""

    def __init__(self, promise_id: str, shape: Shape = PLAIN) -> None:
        self.id = promise_id
        self._shape = shape

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    @property
    def state(self) -> State:
        """The state as it stands now. Raises ``PromiseNotFound``."""
        return promises.get(self.id).state

    def result(self, timeout: float | None = None) -> R_co:
        """Wait up to ``timeout`` seconds (None: for ever) and return the value.

        Raises ``PromiseRejected``, ``PromiseTimedOut`` or ``PromiseCanceled`` as the promise settled, ``ResultTimeout``
        if it has not, ``PromiseNotFound``, and ``MisuseError`` inside a transaction that would hide the outcome.
        """
        if transaction.get_connection(settings.DATABASE).in_atomic_block:
            raise MisuseError(
                "result() was called inside transaction.atomic(): a flow that is started there begins when it commits; "
                "call result() after the block"
            )
        with listener().waiting(self.id) as settled:
            try:
                promise: Promise = settled.result(timeout)
            except TimeoutError:
                raise self._not_yet(timeout) from None
        return self._value(promise)

    async def aresult(self, timeout: float | None = None) -> R_co:
        """Wait for the value without blocking the event loop; as ``result``."""
        with listener().waiting(self.id) as settled:
            try:
                promise = await asyncio.wait_for(asyncio.wrap_future(settled), timeout)
            except TimeoutError:
                raise self._not_yet(timeout) from None
        return self._value(promise)

    def _value(self, promise: Promise) -> R_co:
        value: R_co = self._shape.load(promise.outcome(), f"value of {self.id}")
        return value

    def _not_yet(self, timeout: float | None) -> ResultTimeout:
        return ResultTimeout(f"promise {self.id} is still pending after {timeout} s; the flow goes on")
