"""Shows the logs of a stack on the terminal, each line behind the name of its process."""

import datetime as dt
import io
import sys
import threading
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from honcho.colour import get_colours
from honcho.printer import Message, Printer

LOOK_S = 0.1


class Console:
    """Follows log files from their end, in a thread, until the `with` block is left."""

    def __init__(self, logs: dict[str, Path], output: TextIO = sys.stdout) -> None:
        self._logs = logs
        self._printer = Printer(output, width=max(map(len, logs)))
        self._colours = dict(zip(logs, get_colours(), strict=False))  # the colours repeat for ever
        self._done = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="console", daemon=True)

    def __enter__(self) -> Self:
        self._follower.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._follower.join()

    def _follow(self) -> None:
        with ExitStack() as stack:
            files = {name: stack.enter_context(path.open("rb")) for name, path in self._logs.items()}
            for file in files.values():
                file.seek(0, io.SEEK_END)
            is_last = False
            while not is_last:
                is_last = self._done.wait(LOOK_S)
                for name, file in files.items():
                    self._show(name, file)

    def _show(self, name: str, file: BufferedReader) -> None:
        lines, _, unfinished = file.read().rpartition(b"\n")
        file.seek(-len(unfinished), io.SEEK_CUR)
        if lines:
            now = dt.datetime.now(tz=dt.UTC).astimezone()
            self._printer.write(Message("line", lines, now, name, self._colours[name]))
