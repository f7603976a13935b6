"""What was executed, on disk: one line per event, there even if the process is killed at the next instruction.

A line is one `write` to a file that is open for appending, so lines of many processes do not mix. Times are those of
`time.time()`: PostgreSQL runs on the same machine, so its `clock_timestamp()` is the same clock.
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Where the files lie; set by chaos for all processes of the run.
FOLDER_VARIABLE = "CHAOS_FOLDER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One execution of a step's or a function's body: of which promise and attempt, and by whom.

    ``step`` is its name, unique in its function; "" is the body of the function itself. ``node_pid`` is the worker's
    main process. ``is_failing`` tells that it was meant to raise.
    """

    id: str
    promise_id: str
    attempt: int
    step: str
    at: float
    pid: int
    node_pid: int
    is_failing: bool


def write_execution(promise_id: str, attempt: int, step: str, *, is_failing: bool = False) -> str:
    """Record that an execution begins; return its id."""
    execution = Execution(
        id=uuid.uuid4().hex,
        promise_id=promise_id,
        attempt=attempt,
        step=step,
        at=time.time(),
        pid=os.getpid(),
        node_pid=os.getppid(),
        is_failing=is_failing,
    )
    _append("executions", asdict(execution))
    return execution.id


def write_end(execution_id: str) -> None:
    """Record that the execution did all that it had to."""
    _append("ends", {"id": execution_id, "at": time.time()})


def count(name: str) -> int:
    """Return how often this has been called with ``name``, this call included, by any process."""
    file = os.open(_folder() / f"count-{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, b".")
        return os.fstat(file).st_size
    finally:
        os.close(file)


def read_executions() -> list[Execution]:
    """Return all executions, oldest first."""
    return sorted((Execution(**line) for line in _read("executions")), key=lambda each: each.at)


def read_ends() -> dict[str, float]:
    """Return when each execution ended, by its id."""
    return {line["id"]: line["at"] for line in _read("ends")}


def _append(name: str, line: dict[str, Any]) -> None:
    file = os.open(_folder() / f"{name}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def _read(name: str) -> Iterator[dict[str, Any]]:
    path = _folder() / f"{name}.jsonl"
    return (json.loads(line) for line in path.read_text().splitlines()) if path.exists() else iter(())


def _folder() -> Path:
    return Path(os.environ[FOLDER_VARIABLE])
