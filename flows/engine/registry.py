"""Durable functions by group and name. Filled at import by ``@durable``; refuses what could not work in a worker."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from flows.domain import ids, retry
from flows.domain.durations import Duration, to_timeout
from flows.domain.errors import InvalidInputError, RegistrationError, UnknownFunctionError


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableFunction:
    """A registered function. Calling it calls the plain function, as a unit test would."""

    group: str
    name: str
    function: Callable[..., Any]
    retry: retry.RetryPolicy
    timeout: timedelta | None
    celery_options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def task_name(self) -> str:
        """The name of the Celery task that runs it."""
        return f"{self.group}.{self.name}"

    def check_args(self, args: Sequence[Any]) -> None:
        """Raise ``InvalidInputError`` unless the function can be called with a context and ``args``."""
        try:
            inspect.signature(self.function).bind(None, *args)
        except TypeError as error:
            signature = inspect.signature(self.function)
            raise InvalidInputError(
                "args", f"{error}; {self.task_name} is defined as {self.name}{signature}"
            ) from error


class Registry:
    """All durable functions of this process."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], DurableFunction] = {}

    def __iter__(self) -> Iterator[DurableFunction]:
        return iter(self._functions.values())

    def add(self, durable_function: DurableFunction) -> None:
        """Register ``durable_function``; raise ``RegistrationError`` if it cannot work or its name is taken."""
        key = (durable_function.group, durable_function.name)
        known = self._functions.get(key)
        if known is not None:
            raise RegistrationError(
                f"{durable_function.task_name} is registered already, by {known.function.__module__}; "
                "give one of the two another name or group"
            )
        _check_signature(durable_function)
        self._functions[key] = durable_function

    def find(self, group: str, name: str) -> DurableFunction | None:
        """Return the function, or None if this process has no code for it."""
        return self._functions.get((group, name))

    def get(self, group: str, name: str) -> DurableFunction:
        """Return the function; raise ``UnknownFunctionError`` naming those that the group has."""
        found = self.find(group, name)
        if found is None:
            known = ", ".join(sorted(name for known_group, name in self._functions if known_group == group))
            raise UnknownFunctionError(
                "function", f"group {group!r} has no function {name!r}; it has: {known or 'none'}"
            )
        return found

    def has_group(self, group: str) -> bool:
        """True if this process has code for the group."""
        return any(known_group == group for known_group, _ in self._functions)


registry = Registry()


def durable(
    *,
    group: str,
    name: str | None = None,
    retry: retry.RetryPolicy = retry.DEFAULT,
    timeout: Duration | None = None,
    **celery_options: Any,
) -> Callable[[Callable[..., Any]], DurableFunction]:
    """Register a function, a generator or an ``async def`` for ``group``; its first parameter is the ``Context``.

    ``timeout`` bounds each call from its start to its outcome (default: the TIMEOUT setting). ``celery_options``
    (``time_limit``, ``rate_limit``, …) go to the Celery task. Raises ``RegistrationError`` for a function that is
    registered already or that could not be called with a context and positional arguments.
    """

    def register(function: Callable[..., Any]) -> DurableFunction:
        durable_function = DurableFunction(
            group=ids.check_group(group),
            name=ids.check_function(name or function.__name__, "name"),
            function=function,
            retry=retry,
            timeout=to_timeout(timeout) if timeout is not None else None,
            celery_options=celery_options,
        )
        registry.add(durable_function)
        return durable_function

    return register


def _check_signature(durable_function: DurableFunction) -> None:
    where = durable_function.task_name
    function = durable_function.function
    if inspect.isasyncgenfunction(function):
        raise RegistrationError(
            f"{where} is an async generator; use `await ctx.…` in an async def, or `yield from ctx.…`"
        )
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in positional:
        raise RegistrationError(
            f"{where} must take the context as its first parameter: def {durable_function.name}(ctx)"
        )
    required = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if required:
        raise RegistrationError(
            f"{where} has keyword-only parameters without a default ({', '.join(required)}); "
            "calls pass arguments by position"
        )
