"""Deletes flows that ended long ago, with progress on a terminal."""

from collections.abc import Mapping
from typing import Any

from flows import operations
from flows.cli.output import Output
from flows.domain.errors import InvalidInputError
from flows.store import purges

# A dry run stops to count here.
MAX_COUNTED = 1_000_000


def purge(output: Output, options: Mapping[str, Any]) -> int:
    """Purge one flow by its id, or those that are old enough: that none is left to delete is success."""
    if (options["id"] is None) == (options["older_than"] is None):
        raise InvalidInputError("purge", "takes either the id of one flow, or --older-than with a time such as 30d")
    if options["id"] is not None and (options["state"] or options["dry_run"] or options["limit"]):
        raise InvalidInputError("purge", "of one flow takes no --state, --limit or --dry-run")
    if options["id"] is not None:
        return _purge_tree(output, options["id"])
    chosen = {"older_than": options["older_than"], "states": options["state"] or operations.SETTLED}
    return _count(output, **chosen) if options["dry_run"] else _purge_old(output, options, chosen)


def _purge_tree(output: Output, promise_id: str) -> int:
    promises = operations.purge_tree(promise_id)
    kept = "it, something below it, or the flow that started it is still pending, or may be retried: kept"
    _tell(output, {"flows": int(bool(promises)), "promises": promises}, f"{promise_id}: {kept}")
    return 0 if promises else 1


def _count(output: Output, *, older_than: Any, states: Any) -> int:
    found = purges.count_old(older_than=older_than, states=states, limit=MAX_COUNTED)
    if output.as_json:
        output.json({"would_delete_flows": found})
    else:
        more = " at least" if found == MAX_COUNTED else ""
        output.say(f"{_many(found, 'flow')}{more} would be deleted")
    return 0


def _purge_old(output: Output, options: Mapping[str, Any], chosen: dict[str, Any]) -> int:
    flows = promises = 0
    with output.errors.status("looking for old flows") as status:
        for batch in operations.purge_batches(limit=options["limit"], batch=options["batch"], **chosen):
            flows, promises = flows + batch.flows, promises + batch.promises
            status.update(f"{flows:,} flows deleted")
    _tell(output, {"flows": flows, "promises": promises}, "no flow is that old")
    return 0


def _tell(output: Output, deleted: dict[str, int], nothing: str) -> None:
    if output.as_json:
        output.json(deleted)
    elif deleted["flows"]:
        output.say(f"deleted {_many(deleted['flows'], 'flow')}, {_many(deleted['promises'], 'promise')} in all")
    else:
        output.say(nothing)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' if count != 1 else ''}"
