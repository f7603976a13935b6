"""Ids of promises and addresses of groups: their rules, and the deterministic ids of children."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from flows.domain.errors import InvalidInputError, LimitError

MAX_ID = 255
# Ids of children extend their parent's; at four characters a level this is deeper than any flow should be.
MAX_CHILD_ID = 1000
MAX_TAG = 500
# Of one function. A replay reads them all.
MAX_CALLS = 100_000

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]*")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,149}")
_ANYCAST = re.compile(r"(?:poll://any@)?(?P<group>[^/@]+)")
_UNICAST = re.compile(r"poll://uni@(?P<group>[^/@]+)/(?P<addressee>[A-Za-z0-9._@-]{1,255})")
# What child_id and detached_id append.
_CHILD_SUFFIX = re.compile(r"\.(?:\d+|d[0-9a-f]{16})$")
_DETACHED_SUFFIX = re.compile(r"\.d[0-9a-f]{16}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a call goes: any node of a group, or the one whose process id or Celery name is ``addressee``."""

    group: str
    addressee: str = ""


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


def check_tags(tags: object) -> dict[str, str]:
    """Return ``tags`` if they are strings by name, else raise ``InvalidInputError``."""
    if not isinstance(tags, Mapping):
        raise InvalidInputError("tags", f"must be a dict of strings, and is {tags!r}")
    for name, value in tags.items():
        if not isinstance(name, str) or not isinstance(value, str) or "\x00" in name + value:
            raise InvalidInputError("tags", f"must be strings by name, and has {name!r}: {value!r}")
        if len(name) + len(value) > MAX_TAG:
            raise InvalidInputError("tags", f"must have at most {MAX_TAG} characters each; {name[:40]!r} has more")
    return dict(tags)


def check_function(name: object, field: str = "function") -> str:
    """Return ``name`` if it can name a durable function, else raise ``InvalidInputError``."""
    if not isinstance(name, str) or not _FUNCTION.fullmatch(name):
        raise InvalidInputError(field, f"{name!r} must be a Python identifier in ASCII, at most 150 characters")
    return name


def parse_target(target: object) -> Target:
    """Return where ``target`` leads: ``poll://any@<group>``, or the group's name for short, or ``poll://uni@…``."""
    text = target if isinstance(target, str) else ""
    match = _ANYCAST.fullmatch(text) or _UNICAST.fullmatch(text)
    if match is None:
        raise InvalidInputError(
            "target",
            f"{target!r} must be 'poll://any@<group>', the bare group name, or 'poll://uni@<group>/<node>' with the "
            "process id or Celery name of a node",
        )
    return Target(group=check_group(match["group"], "target"), addressee=match.groupdict().get("addressee", ""))


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
        raise LimitError(f"calls are nested too deeply: the child's id passes {MAX_CHILD_ID} characters")
    return promise_id
