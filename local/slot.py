"""A place for one process of the stack, filled again when the process has died."""

import time
from collections.abc import Mapping
from pathlib import Path

from local.process import Process

# A process that lived shorter than this is probably broken: pause before the next try, twice as long each time.
SHORT_LIFE_S = 10.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class Slot:
    """Holds at most one running process. `fill` is called again and again, from one and the same thread."""

    def __init__(self, name: str, command: str, *, environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.process: Process | None = None
        self.has_started = False
        self.short_lives = 0
        self._command = command
        self._environ = environ
        self._fill_at_s = 0.0

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.exit_code is None

    @property
    def is_stillborn(self) -> bool:
        """Whether it died at once three times in a row: another try will not help."""
        return self.short_lives >= 3  # noqa: PLR2004 - said in the line above

    def fill(self) -> None:
        """Start the process if none runs and the pause after the last one's death is over."""
        if self.process is not None and self.process.exit_code is not None:
            self._bury(self.process, self.process.exit_code)
        if self.process is None and time.monotonic() >= self._fill_at_s:
            self.process = Process(self.name, self._command, environ=self._environ, log=self.log)
            self.has_started = True

    def _bury(self, process: Process, exit_code: int) -> None:
        self.short_lives = self.short_lives + 1 if process.age_s < SHORT_LIFE_S else 0
        pause_s = min(FIRST_PAUSE_S * 2**self.short_lives, LONGEST_PAUSE_S)
        self._fill_at_s = time.monotonic() + pause_s
        self.process = None
        with self.log.open("a") as log:
            print(f"{self.name} ended with status {exit_code}; it is started again in {pause_s:.1f} s", file=log)
