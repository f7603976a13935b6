"""Runs the processes of the Procfile as a container engine would: each is started again when it dies.

honcho reads the file; its own manager stops everything as soon as one process ends, so it cannot be used here.
"""

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from honcho.environ import parse_procfile

from local.environment import environment
from local.ports import LOOPBACK
from local.process import ROOT, Process, stop_all
from local.readiness import answers_ready, responding_workers
from local.servers import LOCAL
from local.slot import Slot

PROCFILE = ROOT / "Procfile"
WORKER = "worker-"
GRACE_S = 20.0
LOOK_S = 0.05


class StackError(RuntimeError):
    """A process of the stack did not come up."""


class Stack:
    """The gateway, the workers and Flower, kept running until the `with` block is left.

    `variables` are DATABASE_URL, REDIS_URL and whatever else the processes shall see. `only` names the processes to
    start (default: all in the Procfile), `counts` how many of one (default 1). With `restarts=False` a process that
    died stays dead.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        *,
        folder: Path = LOCAL,
        only: Collection[str] | None = None,
        counts: Mapping[str, int] | None = None,
        restarts: bool = True,
        procfile: Path = PROCFILE,
    ) -> None:
        self.environ = environment(variables, folder)
        self.restarts = restarts
        self._logs = folder / "log"
        self._commands = _procfile(procfile, only)
        self._slots: dict[str, list[Slot]] = {name: [] for name in self._commands}
        self._lock = threading.Lock()  # guards the lists in _slots
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor")
        for name in self._commands:
            self._resize(name, (counts or {}).get(name, 1))

    @property
    def names(self) -> list[str]:
        return list(self._commands)

    @property
    def gateway_url(self) -> str:
        return f"http://{LOOPBACK}:{self.environ['GATEWAY_PORT']}"

    @property
    def flower_url(self) -> str:
        return f"http://{LOOPBACK}:{self.environ['FLOWER_PORT']}"

    def pids(self, name: str) -> list[int]:
        """Return the process ids of the running instances of a process, oldest place first."""
        return [process.pid for process in self._running(name)]

    def ages_s(self, name: str) -> list[float]:
        """Return for how many seconds each of them has run, as the stack counts."""
        return [process.age_s for process in self._running(name)]

    def log(self, name: str, *, instance: int = 1) -> Path:
        """Return the file with the output of all lives of one instance, emptied when the stack was made."""
        return self._logs / f"{_instance_name(name, instance)}.log"

    def logs(self) -> dict[str, Path]:
        """Return the log file of every instance by the instance's name."""
        return {slot.name: slot.log for slot in self._all_slots()}

    def manage(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `manage.py` with the stack's environment and return its result, whatever its status."""
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environ | environ, capture_output=True, text=True, check=False
        )

    def migrate(self) -> None:
        """Bring the database to the schema of this tree."""
        done = self.manage("migrate", "--no-input")
        if done.returncode:
            raise StackError(f"the migration failed:\n{done.stderr}")

    def start(self) -> Self:
        """Start all processes; return once each has a process id, not yet ready."""
        self._supervisor.start()
        try:
            self._await_starts()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_ready(self, timeout_s: float = 60) -> Self:
        """Return when the gateway says it is ready and every worker has answered; StackError if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while waiting_for := self._unready():
            stillborn = [slot for slot in self._all_slots() if slot.is_stillborn]
            if stillborn or time.monotonic() > deadline:
                raise StackError(f"{waiting_for}\n{_log_ends(stillborn)}")
            time.sleep(LOOK_S)
        return self

    def kill(self, name: str) -> list[int]:
        """Kill all instances of a process with `SIGKILL`, as a crash would; return their process ids."""
        killed = self._running(name)
        for process in killed:
            process.send(signal.SIGKILL)
        for process in killed:
            process.wait(GRACE_S)
        return [process.pid for process in killed]

    def scale(self, name: str, count: int) -> None:
        """Run `count` instances of a process from now on: new ones are started, the last ones stopped."""
        removed = self._resize(name, count)
        stop_all([slot.process for slot in removed if slot.process], GRACE_S)
        self._await_starts()

    def stop(self) -> None:
        """Stop all processes, with `SIGKILL` after 20 seconds; return when none is left."""
        self._stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _supervise(self) -> None:
        """Start, watch and stop every process in this one thread: they are killed when the thread ends."""
        while not self._stopping.is_set():
            with self._lock:  # a slot that is being removed must not be filled
                for slot in itertools.chain(*self._slots.values()):
                    if self.restarts or not slot.has_started:
                        slot.fill()
            self._stopping.wait(LOOK_S)
        stop_all([slot.process for slot in self._all_slots() if slot.process], GRACE_S)

    def _await_starts(self) -> None:
        while not all(slot.has_started for slot in self._all_slots()):
            if not self._supervisor.is_alive():
                raise StackError("the supervisor has ended")
            time.sleep(LOOK_S)

    def _resize(self, name: str, count: int) -> list[Slot]:
        with self._lock:
            slots = self._slots[name]
            slots += [self._new_slot(name, instance) for instance in range(len(slots) + 1, count + 1)]
            removed = slots[count:]
            del slots[count:]
            return removed

    def _new_slot(self, name: str, instance: int) -> Slot:
        own = {"INSTANCE": "" if instance == 1 else f".{instance}"}
        log = self.log(name, instance=instance)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        return Slot(_instance_name(name, instance), self._commands[name], environ=self.environ | own, log=log)

    def _all_slots(self) -> list[Slot]:
        with self._lock:
            return list(itertools.chain(*self._slots.values()))

    def _running(self, name: str) -> list[Process]:
        with self._lock:
            processes = [slot.process for slot in self._slots[name]]
        return [process for process in processes if process and process.exit_code is None]

    def _unready(self) -> str:
        if self._slots.get("gateway") and not answers_ready(LOOPBACK, int(self.environ["GATEWAY_PORT"])):
            return "the gateway is not ready"
        workers = [slot for name, slots in self._slots.items() if name.startswith(WORKER) for slot in slots]
        answered = responding_workers(self.environ["REDIS_URL"], expected=len(workers))
        return "" if answered >= len(workers) else f"{answered} of {len(workers)} workers have answered"


def _procfile(path: Path, only: Collection[str] | None) -> dict[str, str]:
    commands: dict[str, str] = parse_procfile(path.read_text()).processes
    unknown = set(only or ()) - commands.keys()
    if unknown:
        raise StackError(f"not in the Procfile: {', '.join(sorted(unknown))}")
    return {name: command for name, command in commands.items() if only is None or name in only}


def _instance_name(name: str, instance: int) -> str:
    return name if instance == 1 else f"{name}.{instance}"


def _log_ends(slots: list[Slot]) -> str:
    return "\n".join(f"the end of {slot.log}:\n{slot.log.read_text(errors='replace')[-2000:]}" for slot in slots)
