"""Subcommands that show promises: a list, and one with its attempts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.text import Text

from flows import operations
from flows.cli import words
from flows.cli.output import Output
from flows.domain.promise import Phase, Promise
from flows.store import listings, promises
from flows.store.listings import Listed, Wanted
from flows.store.sql import Row
from flows.store.trees import read_tree

# Of a value on a terminal; JSON has it whole.
MAX_SHOWN = 2_000
MAX_AWAITED = 10


def show_list(output: Output, options: Mapping[str, Any]) -> int:
    """List promises; nothing found is exit code 1."""
    kind = None if options["kind"] == "any" else options["kind"]
    chosen = {name: options[name] for name in ("prefix", "state", "phase", "group", "function")}
    found = listings.list_promises(Wanted(**chosen, kind=kind), options["limit"])
    if output.as_json:
        output.json([{name: value for name, value in asdict(each).items() if name != "now"} for each in found])
    else:
        names = ("state", "id", "function", "started", "took", "note")
        output.table(names, (_line(each, is_exact=not output.is_terminal) for each in found))
    if not found:
        output.errors.print("no promise is like that", style="dim")
    return 0 if found else 1


def show_one(output: Output, options: Mapping[str, Any]) -> int:
    """Show one promise and its attempts."""
    promise = operations.get(options["id"])
    attempts = promises.attempts(promise.id)
    if output.as_json:
        output.json({**asdict(promise), "attempts": attempts})
        return 0
    output.say(Text.assemble(words.state(promise.state, promise.phase), f"  {promise.id}"))
    for name, value in [*_facts(promise), ("waits for", _awaited(promise))]:
        if value:
            output.say(Text.assemble((f"{name:>10}  ", "dim"), value))
    if attempts:
        output.say(Text("\n  attempts", style="dim"))
    for attempt in attempts:
        output.say(_attempt(attempt))
    return 0


def _line(each: Listed, *, is_exact: bool) -> tuple[Text | str, ...]:
    return (
        str(each.phase or each.state) if is_exact else words.state(each.state, each.phase),
        each.id,
        f"{each.group}.{each.function}",
        each.created_at.isoformat() if is_exact else words.ago(each.created_at, each.now),
        words.took(each.created_at, each.settled_at, each.now),
        " ".join(each.note.split()),
    )


def _facts(promise: Promise) -> Iterator[tuple[str, str]]:
    version = f" (version {promise.version})" if promise.version else ""
    yield "call", f"{promise.kind} {promise.group}.{promise.function}{version}"
    yield "arguments", _short(promise.args)
    yield "tags", ", ".join(f"{name}={value}" for name, value in sorted(promise.tags.items()))
    yield "parent", promise.parent_id or ""
    yield "started", _time(promise.created_at)
    yield "settled", _time(promise.settled_at)
    yield "deadline", "" if promise.is_settled else _time(promise.deadline_at)
    yield "note", promise.note
    if promise.error:
        yield "error", f"{promise.error['type']}: {promise.error['message']}"
    if promise.is_settled and not promise.error:
        yield "value", _short(promise.value)


def _awaited(promise: Promise) -> str:
    if promise.phase is not Phase.SUSPENDED:
        return ""
    below = [each for each in read_tree(promise.id).promises if each.parent_id == promise.id and each.is_awaited]
    more = f" and {len(below) - MAX_AWAITED} more" if len(below) > MAX_AWAITED else ""
    return ", ".join(f"{each.id} ({each.group}.{each.function})" for each in below[:MAX_AWAITED]) + more


def _attempt(attempt: Row) -> Text:
    where = f"{attempt['node'] or 'a node that is gone'} (process {attempt['pid']})"
    took = words.took(attempt["started_at"], attempt["ended_at"], attempt["ended_at"] or attempt["started_at"])
    error = attempt["error"]
    why = f"  {error['type']}: {error['message']}" if error else ""
    ended = f" in {took}" if attempt["ended_at"] else ""
    return Text(f"  {attempt['fence']:>8}  {attempt['outcome']}{ended} on {where}, {_time(attempt['started_at'])}{why}")


def _time(at: datetime | None) -> str:
    return at.isoformat(sep=" ", timespec="milliseconds") if at else ""


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(text):,} characters; --json has them all)"
