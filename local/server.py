"""One server process of our own: start, proof of identity, stop, restart, kill. Knows no particular server."""

import fcntl
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from local.lifeline import tied
from local.ports import free_port

START_S = 30.0
STOP_S = 15.0
POLL_S = 0.02


class ServerError(RuntimeError):
    """The server did not start, or did not prove to be the one that was started."""


class Server(ABC):
    """A server on a loopback port of its own, its data under `folder`, that dies with this process.

    The port and the URL stay the same over `stop`, `kill` and `restart`. The data in `folder` stay too.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve() / self.name
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect, with the password."""

    @property
    def pid(self) -> int:
        """The server's process id; ServerError if it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"{self.name} is not running")
        return self._process.pid

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> Self:
        """Start the server; return when it has answered and proved to be this very process."""
        if self._process is not None and self._process.poll() is None:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            lock = stack.enter_context((self.folder / "lock").open("w"))
            self._acquire(lock.fileno())
            self._prepare()
            self._process = self._spawn(lock.fileno())
        try:
            self._await_proof()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ask the server to end, with `SIGKILL` after 15 seconds; nothing if it does not run."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the server with `SIGKILL`, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same port and data."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @abstractmethod
    def _argv(self) -> list[str]: ...

    @abstractmethod
    def _prepare(self) -> None:
        """Bring the folder into the state that the server needs; no other server uses it now."""

    @abstractmethod
    def _answering_pid(self) -> int | None:
        """Ask the server at the URL for its process id; None while nothing answers."""

    def _acquire(self, lock: int) -> None:
        """Wait until no process of an earlier server on this folder is left.

        The server inherits the locked file, so the kernel holds the lock exactly as long as any of its processes
        lives: no process id in a file can be stale.
        """
        deadline = time.monotonic() + STOP_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ServerError(f"another {self.name} is using {self.folder}: stop it first") from None
                time.sleep(POLL_S)
            else:
                return

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                tied(self._argv(), self.stop_signal),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                pass_fds=[lock],
                start_new_session=True,
                env=os.environ | {"LC_ALL": "C"},
            )

    def _await_proof(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            answering = self._answering_pid()
            if answering == self.pid:
                return
            if answering is not None:
                raise ServerError(f"port {self.port} is answered by process {answering}, not by {self.name} {self.pid}")
            time.sleep(POLL_S)
        raise ServerError(f"{self.name} did not start; the end of {self.log}:\n{self._log_end()}")

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])
