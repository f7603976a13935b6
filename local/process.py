"""One line of the Procfile as a running process."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from local.lifeline import tied

ROOT = Path(__file__).resolve().parent.parent


class Process:
    """A process in a session of its own, from its start to its end; its output goes to the end of `log`.

    It is killed when the thread that made it ends: a supervisor that crashed leaves nothing running.
    """

    def __init__(self, name: str, command: str, *, environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.started_at_s = time.monotonic()
        with log.open("ab") as output:
            self._handle = subprocess.Popen(
                tied(["sh", "-c", f"exec {command}"], signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environ,
                cwd=ROOT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._handle.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._handle.poll()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.started_at_s

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone; nothing if it has ended."""
        self._handle.send_signal(number)

    def kill_all(self) -> None:
        """Kill the process and its children; nothing if it has ended."""
        if self._handle.poll() is None:  # not yet reaped, so the group's number is still its own
            os.killpg(self._handle.pid, signal.SIGKILL)
            self._handle.wait()

    def wait(self, timeout_s: float) -> bool:
        """Tell whether it has ended within the time."""
        try:
            self._handle.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


def stop_all(processes: list[Process], grace_s: float) -> None:
    """Ask all to end at once, wait for all together, and kill what is left after the grace."""
    for process in processes:
        process.send(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for process in processes:
        if not process.wait(max(deadline - time.monotonic(), 0)):
            process.kill_all()
