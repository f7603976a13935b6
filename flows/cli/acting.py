"""Subcommands that change something. Each is one operation for each id."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from flows import operations
from flows.cli.output import Output
from flows.domain.errors import FlowsError, InvalidInputError

_Options = Mapping[str, Any]


def retry(output: Output, options: _Options) -> int:
    """Retry each promise."""
    return _each(output, options, operations.retry, "ready again", "neither waits, nor was set aside or rejected")


def release(output: Output, options: _Options) -> int:
    """Take each claim back."""
    return _each(output, options, operations.release, "released, ready for others", "nobody holds it")


def cancel(output: Output, options: _Options) -> int:
    """Cancel each promise."""

    def tell(count: object) -> str:
        return f"canceled, with all that was pending below it: {count} in all"

    return _each(output, options, operations.cancel, tell, "was not pending, nor anything below it")


def resolve(output: Output, options: _Options) -> int:
    """Resolve an external promise."""
    try:
        value = json.loads(options["value"])
    except ValueError as error:
        raise InvalidInputError(
            "value", f"{options['value']!r} is not JSON ({error}); a text needs its quotes: '\"yes\"'"
        ) from error
    return _one(output, options["id"], lambda promise_id: operations.resolve(promise_id, value), "resolved")


def reject(output: Output, options: _Options) -> int:
    """Reject an external promise."""
    return _one(output, options["id"], lambda promise_id: operations.reject(promise_id, options["reason"]), "rejected")


def run_again(output: Output, options: _Options) -> int:
    """Start a flow again under a new id."""
    handle = operations.run_again(options["id"], options["new_id"], from_step=options["from_step"])
    if output.as_json:
        output.json([{"id": options["id"], "done": True, "new_id": handle.id}])
    else:
        output.say(f"{options['id']}: runs again as {handle.id}")
    return 0


def _one(output: Output, promise_id: str, act: Callable[[str], object], done: str) -> int:
    return _each(output, {"id": [promise_id]}, act, done, f"was {done} with this outcome before")


def _each(
    output: Output,
    options: _Options,
    act: Callable[[str], object],
    done: str | Callable[[object], str],
    not_done: str,
) -> int:
    """Act on each id, whatever becomes of the others; return 0 if all was done."""
    found = [_attempt(promise_id, act, done, not_done) for promise_id in options["id"]]
    if output.as_json:
        output.json(found)
    else:
        for each in found:
            output.say(f"{each['id']}: {each['message']}")
    return 0 if all(each["done"] for each in found) else 1


def _attempt(
    promise_id: str, act: Callable[[str], object], done: str | Callable[[object], str], not_done: str
) -> dict[str, Any]:
    try:
        result = act(promise_id)
    except FlowsError as error:
        return {"id": promise_id, "done": False, "message": str(error)}
    message = not_done if not result else done if isinstance(done, str) else done(result)
    return {"id": promise_id, "done": bool(result), "message": message}
