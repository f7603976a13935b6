"""Durable functions by group, name and version. Filled at import by ``@durable``; refuses what could not work."""

import inspect
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from flows.domain import ids, retry
from flows.domain.durations import Duration, to_timeout
from flows.domain.errors import InvalidInputError, RegistrationError, UnknownFunctionError, UnknownVersionError
from flows.domain.retry import check_policy

if TYPE_CHECKING:
    from flows.engine.context import Context

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Returns(Protocol[R_co]):
    """What a durable function returns in the end. For type checkers: nothing implements it."""

    def __returns__(self) -> R_co:
        """Stand for the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableFunction(Generic[P, R_co]):
    """A registered function. Calling it calls the plain function, as a unit test would."""

    group: str
    name: str
    version: int = 1
    function: Callable[..., Any]
    retry: retry.RetryPolicy
    timeout: timedelta | None
    celery_options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, ctx: "Context", *args: P.args, **kwargs: P.kwargs) -> Returns[R_co]:
        result: Returns[R_co] = self.function(ctx, *args, **kwargs)
        return result

    @property
    def task_name(self) -> str:
        """The name of the Celery task that runs it."""
        return f"{self.group}.{self.name}"

    def check_args(self, args: Sequence[Any]) -> None:
        """Raise ``InvalidInputError`` unless the function can be called with a context and ``args``."""
        if len(args) in _counts(self.function):
            return
        signature = _signature(self.function)
        try:
            signature.bind(None, *args)
        except TypeError as error:
            raise InvalidInputError(
                "args", f"{error}; {self.task_name} is defined as {self.name}{signature}"
            ) from error


AnyFunction = DurableFunction[..., Any]

_signature = cache(inspect.signature)
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@cache
def _counts(function: Callable[..., Any]) -> range:
    """Return how many arguments the function surely takes after the context; none if any must be named."""
    parameters = _signature(function).parameters.values()
    kinds = {parameter.kind for parameter in parameters if parameter.default is parameter.empty}
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        return range(0)
    by_position = [each for each in parameters if each.kind in _BY_POSITION]
    needed = [each for each in by_position if each.default is each.empty]
    return range(len(needed) - 1, len(by_position))


class Registry:
    """All durable functions of this process."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], dict[int, AnyFunction]] = {}

    def __iter__(self) -> Iterator[AnyFunction]:
        """Iterate over the latest version of each function."""
        return (versions[max(versions)] for versions in self._functions.values())

    def add(self, durable_function: AnyFunction) -> None:
        """Register ``durable_function``; raise ``RegistrationError`` if it cannot work or its name is taken."""
        _check_signature(durable_function)
        versions = self._functions.setdefault((durable_function.group, durable_function.name), {})
        known = versions.get(durable_function.version)
        if known is not None:
            raise RegistrationError(
                f"version {durable_function.version} of {durable_function.task_name} is registered already, by "
                f"{known.function.__module__}; give one of the two another version, name or group"
            )
        versions[durable_function.version] = durable_function

    def find(self, group: str, name: str, version: int | None = None) -> AnyFunction | None:
        """Return that version, or the latest; None if this process has no code for it."""
        versions = self._functions.get((group, name), {})
        return versions.get(version if version is not None else max(versions, default=0))

    def get(self, group: str, name: str, version: int | None = None) -> AnyFunction:
        """Return the function; raise ``UnknownFunctionError`` or ``UnknownVersionError``, naming those there are."""
        found = self.find(group, name, version)
        if found is not None:
            return found
        if versions := self._functions.get((group, name)):
            known = ", ".join(str(each) for each in sorted(versions))
            raise UnknownVersionError(
                "version",
                f"{group}.{name} has no version {version} here; it has: {known}. Deploy the one that is asked for",
            )
        names = ", ".join(sorted(name for known_group, name in self._functions if known_group == group))
        raise UnknownFunctionError("function", f"group {group!r} has no function {name!r}; it has: {names or 'none'}")

    def has_group(self, group: str) -> bool:
        """True if this process has code for the group."""
        return any(known_group == group for known_group, _ in self._functions)


registry = Registry()


class Register(Protocol):
    """What ``@durable(…)`` does to a function; the overloads tell type checkers what it returns in the end."""

    @overload
    def __call__(
        self, function: "Callable[Concatenate[Context, P], Generator[Any, Any, R]]"
    ) -> DurableFunction[P, R]: ...
    @overload
    def __call__(
        self, function: "Callable[Concatenate[Context, P], Coroutine[Any, Any, R]]"
    ) -> DurableFunction[P, R]: ...
    @overload
    def __call__(self, function: "Callable[Concatenate[Context, P], R]") -> DurableFunction[P, R]: ...


def durable(
    *,
    group: str,
    name: str | None = None,
    version: int = 1,
    retry: retry.RetryPolicy = retry.DEFAULT,
    timeout: Duration | None = None,
    **celery_options: Any,
) -> Register:
    """Register a function, a generator or an ``async def`` for ``group``; its first parameter is the ``Context``.

    ``version`` tells functions of one name apart: a new call takes the latest, a call in flight keeps its own.
    ``timeout`` bounds each call from its start to its outcome (default: the TIMEOUT setting). ``celery_options``
    (``time_limit``, ``rate_limit``, …) go to the Celery task; those of the latest version count. Raises
    ``RegistrationError`` for a function that is registered already or that could not be called with a context and
    positional arguments.
    """
    check_policy(retry)

    def register(function: Callable[..., Any]) -> AnyFunction:
        durable_function: AnyFunction = DurableFunction(
            group=ids.check_group(group),
            name=ids.check_function(name or function.__name__, "name"),
            version=_check_version(version),
            function=function,
            retry=retry,
            timeout=_to_timeout(timeout) if timeout is not None else None,
            celery_options=celery_options,
        )
        registry.add(durable_function)
        return durable_function

    return cast(Register, register)


def _to_timeout(timeout: object) -> timedelta:
    found = None if isinstance(timeout, datetime) else to_timeout(timeout)  # type: ignore[arg-type]  # checked there
    if not isinstance(found, timedelta):
        raise InvalidInputError("timeout", f"of a function must be seconds or a timedelta, and is {timeout!r}")
    return found


def _check_version(version: object) -> int:
    if type(version) is not int or not 1 <= version < 2**31:
        raise InvalidInputError("version", f"must be a whole number from 1 on, and is {version!r}")
    return version


def _check_signature(durable_function: AnyFunction) -> None:
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
