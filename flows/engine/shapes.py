"""Values that annotations describe beyond JSON: dataclasses, pydantic models, datetimes, tuples, enums and the like.

What is annotated as plain JSON, or not at all, passes unchanged and unchecked. Everything else is written and read by
pydantic, which is loaded for that alone.
"""

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

from flows.domain.errors import InvalidInputError, NotJSONError

_PLAIN_LEAVES: frozenset[Any] = frozenset({Any, object, None, type(None), bool, int, float, str, list, dict})
_PLAIN_ORIGINS: frozenset[Any] = frozenset({list, typing.Union, types.UnionType, collections.abc.Sequence})
_PLAIN_MAPPINGS: frozenset[Any] = frozenset({dict, collections.abc.Mapping})
_GENERATORS: frozenset[Any] = frozenset({collections.abc.Generator, typing.Generator})


class Shape:
    """Plain JSON: values pass as they are. ``has_sets`` tells of values that are written in another order each time."""

    has_sets = False

    def dump(self, value: Any, field: str) -> Any:
        """Return ``value`` as plain JSON; raise ``NotJSONError`` naming ``field`` if it does not have this shape."""
        return value

    def load(self, value: Any, field: str) -> Any:
        """Return what was dumped; raise ``InvalidInputError`` naming ``field`` if it does not fit."""
        return value


PLAIN = Shape()


class _Described(Shape):
    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        self.has_sets = _has_sets(adapter.core_schema)

    def dump(self, value: Any, field: str) -> Any:
        from pydantic_core import PydanticSerializationError

        try:
            return self._adapter.dump_python(value, mode="json", by_alias=True, round_trip=True, warnings="error")
        except (PydanticSerializationError, UnicodeDecodeError) as error:  # the latter for bytes that are no text
            raise NotJSONError(field, f"does not have the annotated type: {error}") from error

    def load(self, value: Any, field: str) -> Any:
        from pydantic import ValidationError

        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise InvalidInputError(field, f"does not fit its annotation: {problems}") from error


@cache
def shape_of(annotation: Any) -> Shape:
    """Return the shape of values with this annotation."""
    if _is_plain(annotation):
        return PLAIN
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return _Described(TypeAdapter(annotation))
    except PydanticUserError:  # no description: only plain JSON can pass
        return PLAIN


@cache
def parameter_shapes(function: Callable[..., Any]) -> Callable[[int], Shape]:
    """Return the shape of each positional argument of a durable function, by its index after the context."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    shapes = [_resolved(function, each.annotation) for each in parameters]
    rest = shapes[-1] if parameters and parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL else PLAIN
    return lambda index: shapes[index] if index < len(shapes) else rest


@lru_cache(maxsize=1024)  # bounded, for a step may be a function that is made anew each time
def result_shape(function: Callable[..., Any]) -> Shape:
    """Return the shape of what the function returns: in the end, if it is a generator or a coroutine function."""
    annotations = getattr(function, "__annotations__", {})
    return _resolved(function, annotations["return"], is_result=True) if "return" in annotations else PLAIN


def dump_args(function: Callable[..., Any], args: Sequence[Any]) -> list[Any]:
    """Return the arguments of a durable function as plain JSON."""
    shape = parameter_shapes(function)
    for index in range(len(args)):
        if shape(index).has_sets:
            raise InvalidInputError(
                f"args[{index}]", "is annotated with a set, whose order differs between processes; use a list, sorted"
            )
    return [shape(index).dump(value, f"args[{index}]") for index, value in enumerate(args)]


def load_args(function: Callable[..., Any], args: Sequence[Any]) -> list[Any]:
    """Return the arguments of a durable function as it wants them."""
    shape = parameter_shapes(function)
    return [shape(index).load(value, f"args[{index}]") for index, value in enumerate(args)]


def _resolved(function: Callable[..., Any], annotation: Any, *, is_result: bool = False) -> Shape:
    if annotation is inspect.Parameter.empty:
        return PLAIN
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        resolved = typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}), include_extras=True)
    except (NameError, TypeError):  # imported for type checkers only: then it describes nothing here
        return PLAIN
    found = resolved["it"]
    if is_result and typing.get_origin(found) in _GENERATORS:
        found = typing.get_args(found)[2]
    try:
        return shape_of(found)
    except TypeError:  # an annotation that cannot be hashed, such as Annotated[int, []]
        return PLAIN


def _has_sets(schema: Any) -> bool:
    if isinstance(schema, dict):
        return schema.get("type") in ("set", "frozenset") or any(map(_has_sets, schema.values()))
    return isinstance(schema, list | tuple) and any(map(_has_sets, schema))


def _is_plain(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return True
    if origin in _PLAIN_MAPPINGS:
        key, value = typing.get_args(annotation)
        return key in (str, Any) and _is_plain(value)
    if origin is not None:
        return origin in _PLAIN_ORIGINS and all(map(_is_plain, typing.get_args(annotation)))
    return isinstance(annotation, typing.TypeVar) or annotation in _PLAIN_LEAVES
