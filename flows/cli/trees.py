"""Shows a call tree, once or for as long as it changes."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from time import monotonic, sleep
from typing import Any

from rich.live import Live
from rich.text import Text
from rich.tree import Tree as Picture

from flows.cli import words
from flows.cli.output import Output
from flows.domain.promise import Kind, State
from flows.domain.tree import Branch, Siblings, Tree, TreePromise, fold
from flows.store.trees import read_tree

POLL_S = 0.5
_PATHS = {Kind.DETACHED: "detached ", Kind.RUN: "step ", Kind.TIMER: "timer ", Kind.EXTERNAL: "external "}


def show_tree(output: Output, options: Mapping[str, Any]) -> int:
    """Show a promise and the calls below it."""
    tree = read_tree(options["id"])
    if output.as_json:
        output.json(_as_json(tree))
    else:
        output.console.print(_picture(tree))
        _tell_if_cut(output, tree)
    return 0


def watch(output: Output, options: Mapping[str, Any]) -> int:
    """Follow a tree until its top has settled: 0 if it resolved, else 1."""
    tree = read_tree(options["id"])
    until = _until(options["timeout"])
    if output.as_json or not output.is_terminal:
        tree = _follow_by_lines(output, tree, until)
    else:
        tree = _follow_live(output, tree, until)
    return 0 if tree.promises[0].state is State.RESOLVED else 1


def _until(timeout: timedelta | None) -> float | None:
    return monotonic() + timeout.total_seconds() if timeout is not None else None


def _is_over(tree: Tree, until: float | None) -> bool:
    return tree.promises[0].state is not State.PENDING or (until is not None and monotonic() > until)


def _follow_live(output: Output, tree: Tree, until: float | None) -> Tree:
    with Live(_picture(tree), console=output.console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while not _is_over(tree, until):
            sleep(POLL_S)
            tree = read_tree(tree.promises[0].id)
            live.update(_picture(tree), refresh=True)
        live.vertical_overflow = "visible"
        live.refresh()
    _tell_if_cut(output, tree)
    return tree


def _follow_by_lines(output: Output, tree: Tree, until: float | None) -> Tree:
    """Print a line for each promise whenever it is in another state than before."""
    seen: dict[str, tuple[str, str]] = {}
    while True:
        for promise in tree.promises:
            if seen.get(promise.id) != (promise.state, promise.phase):
                seen[promise.id] = (promise.state, promise.phase)
                _tell_change(output, tree, promise)
        if _is_over(tree, until):
            return tree
        sleep(POLL_S)
        tree = read_tree(tree.promises[0].id)


def _tell_change(output: Output, tree: Tree, promise: TreePromise) -> None:
    if output.as_json:
        fields = ("id", "group", "function", "kind", "state", "phase", "note", "error", "node")
        output.json({"at": tree.now, **{name: getattr(promise, name) for name in fields}})
    else:
        at = tree.now.isoformat(sep=" ", timespec="milliseconds")
        output.say(Text.assemble((f"{at}  ", "dim"), f"{promise.id}  ", *_label(promise, tree, is_bare=True)))


def _as_json(tree: Tree) -> dict[str, Any]:
    return {"now": tree.now, "is_cut": tree.is_cut, "promises": [asdict(promise) for promise in tree.promises]}


def _tell_if_cut(output: Output, tree: Tree) -> None:
    if tree.is_cut:
        output.errors.print("there is more of it than is shown", style="dim")


def _picture(tree: Tree) -> Picture:
    top = fold(tree.promises)
    picture = Picture(Text.assemble(*_label(top.promise, tree)), guide_style="dim")
    _hang(picture, top, tree)
    return picture


def _hang(picture: Picture, branch: Branch, tree: Tree) -> None:
    for each in branch.below:
        if isinstance(each, Siblings):
            picture.add(Text.assemble(*_many(each)))
        else:
            _hang(picture.add(Text.assemble(*_label(each.promise, tree))), each, tree)


def _many(siblings: Siblings) -> list[str | Text | tuple[str, str]]:
    first = siblings.first
    parts: list[str | Text | tuple[str, str]] = [
        f"{len(siblings.branches)} times {_PATHS.get(first.kind, '')}{first.group}.{first.function}  "
    ]
    for state, count in siblings.counts.items():
        parts += [words.glyph(state), f" {count} {state}  "]
    return parts


def _label(promise: TreePromise, tree: Tree, *, is_bare: bool = False) -> list[str | Text | tuple[str, str]]:
    """Return one promise on one line: what it is, how it stands, for how long, and why."""
    style = words.style_of(promise.state, promise.phase)
    name = f"{_PATHS.get(promise.kind, '')}{promise.group}.{promise.function}"
    parts: list[str | Text | tuple[str, str]] = [words.glyph(promise.state, promise.phase), f" {name}"]
    if not is_bare:
        parts.append((f"  {promise.id}", "dim"))
    parts.append((f"  {words.state(promise.state, promise.phase).plain[2:]}", style))
    if promise.kind is not Kind.RUN:
        parts.append((f"  {words.took(promise.created_at, promise.settled_at, tree.now)}", "dim"))
    if promise.node:
        parts.append((f"  on {promise.node}", "dim"))
    if tried := promise.failures + promise.losses:
        parts.append((f"  {tried} failed or lost", "yellow"))
    why = promise.note or (promise.error if promise.state is not State.RESOLVED else "")
    if why:
        parts.append((f"  {' '.join(why.split())}", "red" if promise.state is not State.PENDING else "yellow"))
    return parts
