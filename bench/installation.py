"""A side of the comparison as running processes, frozen while another one is measured."""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.system import Side
from local.lifeline import tied
from local.process import ROOT
from local.servers import Servers
from local.stack import Stack

PROCFILES = ROOT / "bench" / "procfiles"
GIVE_UP_S = 45


class GaveUpError(RuntimeError):
    """What was asked of a client is not done in time. The installation is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The pool of all workers, how many attempts or tasks each runs at once, and how many workers there are."""

    pool: str = "prefork"
    concurrency: int = 1
    counts: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.pool if self.concurrency == 1 else f"{self.pool}, {self.concurrency} each"


class Installation:
    """Workers and client of one side, between the start and the end of a `with` block; frozen outside of `turn`."""

    def __init__(self, side: Side, servers: Servers, setting: Setting, folder: Path) -> None:
        variables = {
            **side.variables(servers),
            "POOL": setting.pool,
            "CONCURRENCY": str(setting.concurrency),
        }
        self.side = side
        self.is_given_up = False
        self.stack = Stack(variables, folder=folder, counts=setting.counts, procfile=PROCFILES / side.procfile)
        self._folder = folder

    def __enter__(self) -> Self:
        self.stack.start()
        self._client = _Client(self.side.name, self.stack.environ, self._folder / "log" / "client.log")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def make_ready(self) -> None:
        """Return when all workers have answered and done something, and freeze them."""
        self.stack.wait_ready()
        self.ask("one_at_a_time", self.side.probe, (), expected=3)
        self._signal(signal.SIGSTOP)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let the workers run within the block, and nowhere else: whoever is not measured costs nothing."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def ask(self, way: str, call: str, args: Sequence[int], *, expected: object, times: int = 1) -> list[float]:
        """Let the client do it; return the seconds that it measured.

        Raises ``GaveUpError``. Nothing is left then that would go on polling while others are measured.
        """
        try:
            return self._client.ask({"way": way, "call": call, "args": args, "expected": expected, "times": times})
        except GaveUpError:
            self.is_given_up = True
            self._stop()
            raise

    def pids(self) -> list[int]:
        """Return the process ids of the workers; each leads the group of its processes."""
        return [pid for name in self.stack.names for pid in self.stack.pids(name)]

    def _stop(self) -> None:
        self._client.stop()
        self._signal(signal.SIGCONT)
        self.stack.stop()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            os.killpg(pid, number)


class _Client:
    """The client's process, that ends with its standard input."""

    def __init__(self, side: str, environ: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._handle = subprocess.Popen(
                tied([sys.executable, "-m", "bench.client", side], signal.SIGKILL),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environ,
                cwd=ROOT,
                text=True,
                bufsize=1,
            )

    def ask(self, asked: Mapping[str, object]) -> list[float]:
        if self._handle.stdin is None or self._handle.stdout is None:
            raise RuntimeError("the client has no pipes")
        print(json.dumps(asked), file=self._handle.stdin, flush=True)
        with selectors.DefaultSelector() as selector:
            selector.register(self._handle.stdout, selectors.EVENT_READ)
            if not selector.select(GIVE_UP_S):
                raise GaveUpError(f"not done after {GIVE_UP_S} s: {asked}")
        answer = self._handle.stdout.readline()
        if not answer:
            raise RuntimeError(f"the client ended; the end of {self._log}:\n{self._log.read_text()[-2000:]}")
        seconds: list[float] = json.loads(answer)
        return seconds

    def stop(self) -> None:
        with self._handle:
            self._handle.kill()
