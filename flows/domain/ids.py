"""Ids of promises and addresses of groups: their rules, and the deterministic ids of children."""

import hashlib
import re

from flows.domain.errors import InvalidInputError

MAX_ID = 255
# Ids of children extend their parent's; at four characters a level this is deeper than any flow should be.
MAX_CHILD_ID = 1000

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]*")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,149}")
_TARGET = re.compile(r"(?:poll://any@)?(?P<group>[^/@]+)")
# What child_id and detached_id append.
_CHILD_SUFFIX = re.compile(r"\.(?:\d+|d[0-9a-f]{16})$")
_DETACHED_SUFFIX = re.compile(r"\.d[0-9a-f]{16}$")


def check_id(promise_id: object, field: str = "id") -> str:
    """Return ``promise_id`` if a caller may choose it, else raise ``InvalidInputError``."""
    if not isinstance(promise_id, str) or not promise_id:
        raise InvalidInputError(field, "must be a string that is not empty")
    if len(promise_id) > MAX_ID:
        raise InvalidInputError(field, f"must be at most {MAX_ID} characters long, not {len(promise_id)}")
    if not _ID.fullmatch(promise_id):
        raise InvalidInputError(
            field, f"{promise_id!r} must start with a letter or digit and go on with letters, digits or any of ._:@/-"
        )
    return promise_id


def is_like_a_call(promise_id: str) -> bool:
    """Return True if ``promise_id`` ends as the ids of calls do, and so might be one of another flow."""
    return _CHILD_SUFFIX.search(promise_id) is not None


def check_group(group: object, field: str = "group") -> str:
    """Return ``group`` if it can name a Celery queue of ours, else raise ``InvalidInputError``."""
    if not isinstance(group, str) or not _GROUP.fullmatch(group):
        raise InvalidInputError(field, f"{group!r} must be letters, digits, - and _, at most 100, such as 'service-a'")
    return group


def check_function(name: object, field: str = "function") -> str:
    """Return ``name`` if it can name a durable function, else raise ``InvalidInputError``."""
    if not isinstance(name, str) or not _FUNCTION.fullmatch(name):
        raise InvalidInputError(field, f"{name!r} must be a Python identifier in ASCII, at most 150 characters")
    return name


def parse_target(target: object) -> str:
    """Return the group of ``poll://any@<group>``, for which the bare group name is short."""
    match = _TARGET.fullmatch(target) if isinstance(target, str) else None
    if match is None:
        raise InvalidInputError("target", f"{target!r} must be 'poll://any@<group>' or the bare group name")
    return check_group(match["group"], "target")


def child_id(parent_id: str, position: int) -> str:
    """Return the id of the call that ``parent_id`` makes at ``position``, counted from 0 in call order."""
    return _bounded(f"{parent_id}.{position}")


def detached_id(root_id: str, parent_id: str, position: int) -> str:
    """Return the id of a detached call: a lineage of its own, yet the same on every replay.

    It hangs below the first root, never below another detached id, so that a function which detaches itself for ever
    does not grow its ids.
    """
    origin = _DETACHED_SUFFIX.sub("", root_id)
    mark = hashlib.blake2b(f"{parent_id}.{position}".encode(), digest_size=8).hexdigest()
    return _bounded(f"{origin}.d{mark}")


def _bounded(promise_id: str) -> str:
    if len(promise_id) > MAX_CHILD_ID:
        raise InvalidInputError(
            "depth", f"calls are nested too deeply: the child's id passes {MAX_CHILD_ID} characters"
        )
    return promise_id
