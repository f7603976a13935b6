"""What callers ask for, checked: a function or its name, its arguments, and the options of the call."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict

from flows.domain import ids, retry, values
from flows.domain.durations import Timeout, to_timeout
from flows.domain.errors import InvalidInputError
from flows.domain.ids import Target
from flows.engine.registry import AnyFunction, DurableFunction, registry
from flows.engine.shapes import PLAIN, Shape, dump_args, load_args, result_shape


class Options(TypedDict, total=False):
    """The options that every call takes; see ``Context``."""

    target: str | None
    timeout: Timeout | None
    retry: retry.RetryPolicy | None
    tags: Mapping[str, str] | None


class Request(TypedDict):
    """A call as it is stored: the fields that ``Call`` and ``Start`` have in common."""

    group: str
    addressee: str
    function: str
    version: int | None
    args: str
    digest: str
    timeout: timedelta | datetime | None
    retry: dict[str, Any] | None
    tags: dict[str, str]


def request(function: object, args: Sequence[Any], options: Options, default_group: str | None = None) -> Request:
    """Return the call as it is to be stored; raise ``InvalidInputError`` for what breaks a rule.

    A function that is called by its name takes plain JSON, too, for what it describes by annotations. One whose code is
    in another project is not known here: its arguments cannot be checked and must be plain JSON, and its version is the
    latest that the worker knows which runs it first.
    """
    for unknown in options.keys() - Options.__annotations__.keys() if options else ():
        raise InvalidInputError(
            unknown, f"is no option of a call; there are {', '.join(Options.__annotations__)}; arguments go by position"
        )
    timeout, policy = options.get("timeout"), options.get("retry")
    where, name, known = _callee(function, options.get("target"), default_group)
    if known is not None:
        known.check_args(args)
        args = dump_args(known.function, args if known is function else load_args(known.function, args))
        timeout = timeout if timeout is not None else known.timeout
    text = values.encode(list(args), "args")
    return {
        "group": where.group,
        "addressee": where.addressee,
        "function": name,
        "version": known.version if known else None,
        "args": text,
        "digest": values.digest(args, text),
        "timeout": to_timeout(timeout) if timeout is not None else None,
        "retry": retry.to_json(policy) if policy is not None else None,
        "tags": ids.check_tags(tags) if (tags := options.get("tags")) else {},
    }


def shape_for(function: object) -> Shape:
    """Return the shape of the value of a call: what the function's annotation describes, or any JSON for a name."""
    return result_shape(function.function) if isinstance(function, DurableFunction) else PLAIN


def _callee(function: object, target: str | None, default_group: str | None) -> tuple[Target, str, AnyFunction | None]:
    where = ids.parse_target(target) if target is not None else None
    if isinstance(function, DurableFunction):
        return where or Target(group=function.group), function.name, function
    if not isinstance(function, str):
        raise InvalidInputError(
            "function", f"must be a function made with @durable, or the name of one, and is {function!r}"
        )
    if where is None and default_group is None:
        raise InvalidInputError("target", "is needed with a function's name, such as target='poll://any@service-a'")
    where = where or Target(group=default_group or "")
    return where, ids.check_function(function), registry.find(where.group, function)
