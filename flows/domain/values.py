"""JSON values: what may be stored, how it is written, and the digest that tells one call from another.

Values are stored as the very text written here (a ``json`` column, not ``jsonb``), so that key order, ``1e22`` and
``-0.0`` come back as they were and a replay sees what the first run saw.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

from flows.domain.errors import InvalidInputError, NotJSONError

MAX_DEPTH = 64
# Of one value, or of all arguments of one call, as UTF-8. Larger things belong into a store of their own, by reference.
MAX_BYTES = 4 * 1024 * 1024
_SCALARS = frozenset({int, bool, type(None)})
# Made once: ``json.dumps`` makes an encoder for each call that says how it wants its text.
_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_write_sorted = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


def encode(value: Any, field: str) -> str:
    """Return the JSON text of ``value``; tuples are written as arrays.

    Raises ``NotJSONError`` whose ``field`` is the path to the culprit, starting with ``field``, and
    ``InvalidInputError`` for what is too large.
    """
    _check(value, field, 0)
    try:
        text = _write(value)
    except ValueError as error:  # Python writes no integer of more than some thousand digits
        raise NotJSONError(field, f"cannot be written as JSON: {error}") from error
    if len(text) > MAX_BYTES // 4 and len(text.encode()) > MAX_BYTES:
        raise InvalidInputError(field, f"is larger than {MAX_BYTES} bytes; store it elsewhere and pass where it is")
    return text


def decode(text: str) -> Any:
    """Return the value that ``encode`` wrote."""
    return json.loads(text)


def digest(args: Sequence[Any], text: str | None = None) -> str:
    """Return 32 hex digits that are equal for equal arguments, whatever the order of their keys.

    ``text`` is what ``encode`` wrote of them, if that is known: without an object in it, it stands in order.
    """
    if text is None or "{" in text:
        text = _write_sorted(args)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _check(value: Any, path: str, depth: int) -> None:
    kind = type(value)
    if kind in _SCALARS:
        return
    if depth > MAX_DEPTH:
        raise NotJSONError(path, f"nested deeper than {MAX_DEPTH} levels")
    if kind is str:
        _check_text(value, path)
    elif kind is float:
        if not math.isfinite(value):
            raise NotJSONError(path, f"{value!r} is not JSON; send null or a string instead")
    elif kind is list or kind is tuple:
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]", depth + 1)
    elif kind is dict:
        _check_object(value, path, depth)
    else:
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise NotJSONError(path, f"{name} is not JSON; use None, bool, int, float, str, list or dict")


def _check_object(value: dict[Any, Any], path: str, depth: int) -> None:
    for key, item in value.items():
        if type(key) is not str:
            raise NotJSONError(path, f"key {key!r} is a {type(key).__name__}; JSON keys are strings")
        _check_text(key, path)
        _check(item, f"{path}.{key}", depth + 1)


def _check_text(text: str, path: str) -> None:
    if "\x00" in text:
        raise NotJSONError(path, "the NUL character cannot be stored by PostgreSQL; remove it")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise NotJSONError(path, "has a lone surrogate, which is not Unicode text") from error
