"""Where the answers go: tables and colours on a terminal, plain lines in a pipe, JSON where it was asked for."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

# Wider than any line: what reads from a pipe wants its lines whole.
_PIPE_WIDTH = 100_000


class Output:
    """One command's standard output and standard error."""

    def __init__(self, *, as_json: bool, no_color: bool = False, force_color: bool = False) -> None:
        self.as_json = as_json
        # None leaves it to the terminal, and to NO_COLOR.
        without = True if no_color else None
        self.console = Console(
            no_color=without, force_terminal=force_color or None, highlight=False, soft_wrap=not sys.stdout.isatty()
        )
        self.is_terminal = self.console.is_terminal
        if not sys.stdout.isatty():
            self.console.width = _PIPE_WIDTH
        self.errors = Console(stderr=True, no_color=without, highlight=False)

    def json(self, value: object) -> None:
        """Print ``value`` as one JSON document; on a terminal with indents."""
        indent = 2 if sys.stdout.isatty() else None
        sys.stdout.write(json.dumps(value, default=_plain, ensure_ascii=False, indent=indent) + "\n")
        sys.stdout.flush()

    def say(self, text: RenderableType) -> None:
        """Print one line, or one block."""
        self.console.print(text, markup=False)

    def table(self, names: Sequence[str], lines: Iterable[Sequence[Text | str]]) -> None:
        """Print a table: aligned for people, fields between tabs in a pipe."""
        if not self.is_terminal:
            for line in lines:
                sys.stdout.write("\t".join(" ".join(str(cell).split()) for cell in line) + "\n")
            sys.stdout.flush()
            return
        rows = list(lines)
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for number, name in enumerate(names):
            # Only the last one, a text, gives way where the terminal is narrow: an id must be whole to be copied.
            longest = max((len(row[number]) for row in rows), default=0) if name != names[-1] else None
            table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=longest)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def fail(self, code: int, error: Exception, text: str | None = None) -> int:
        """Tell what went wrong on standard error; return the exit code."""
        message = text or str(error)
        if self.as_json:
            self.json({"error": type(error).__name__, "message": message})
        self.errors.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
        return code


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{value!r} has no JSON form")
