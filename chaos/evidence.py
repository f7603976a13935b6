"""What a run has left behind: the tables, the diary, the faults and the ends of processes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from chaos import diary
from chaos.database import Database
from chaos.diary import Execution
from chaos.nemesis import Injected
from chaos.plan import Planned

PROMISES = """
SELECT id, root_id, parent_id, kind, "group", function, state, phase, note, value, error,
    extract(epoch FROM created_at)::float8 AS created_at, extract(epoch FROM settled_at)::float8 AS settled_at,
    extract(epoch FROM deadline_at)::float8 AS deadline_at
FROM flows_promise
"""
# A session is a process id and a count of nine bits.
ATTEMPTS = """
SELECT promise_id, fence, session >> 9 AS pid, outcome, error->>'type' AS error_type,
    extract(epoch FROM started_at)::float8 AS started_at, extract(epoch FROM ended_at)::float8 AS ended_at
FROM flows_attempt
"""
ENTRIES = "SELECT promise, step, count(*) AS count FROM chaos_entry GROUP BY promise, step"
CHANGED = "SELECT promise, what, at FROM chaos_changed ORDER BY id"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseRow:
    """A row of `flows_promise`; times in epoch seconds."""

    id: str
    root_id: str
    parent_id: str | None
    kind: str
    group: str
    function: str
    state: str
    phase: str
    note: str
    value: Any
    error: dict[str, Any] | None
    created_at: float
    settled_at: float | None
    deadline_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """A row of `flows_attempt`; ``pid`` is the process that claimed."""

    promise_id: str
    fence: int
    pid: int | None
    outcome: str
    error_type: str | None
    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of a run.

    ``changed`` says which settled promises were changed; ``ends`` when executions ended, by their ids; ``deaths`` which
    nodes ended by themselves.
    """

    planned: Sequence[Planned]
    promises: dict[str, PromiseRow]
    attempts: dict[tuple[str, int], AttemptRow]
    entries: Counter[tuple[str, str]]
    changed: list[str]
    executions: list[Execution]
    ends: dict[str, float]
    faults: list[Injected]
    deaths: list[Injected]

    @property
    def steps(self) -> Iterable[tuple[PromiseRow, str]]:
        """The checkpoints of steps that succeeded, and the step's name."""
        return (
            (promise, promise.value["step"])
            for promise in self.promises.values()
            if promise.kind == "run" and isinstance(promise.value, dict) and "execution" in promise.value
        )


def collect(
    planned: Sequence[Planned], database: Database, faults: Iterable[Injected], deaths: list[Injected]
) -> Evidence:
    """Read everything; the run is over."""
    promises = [PromiseRow(**row) for row in database.rows(PROMISES)]
    attempts = [AttemptRow(**row) for row in database.rows(ATTEMPTS)]
    return Evidence(
        planned=planned,
        promises={row.id: row for row in promises},
        attempts={(row.promise_id, row.fence): row for row in attempts},
        entries=Counter({(row["promise"], row["step"]): row["count"] for row in database.rows(ENTRIES)}),
        changed=[f"{row['promise']}: {row['what']} at {row['at']}" for row in database.rows(CHANGED)],
        executions=diary.read_executions(),
        ends=diary.read_ends(),
        faults=sorted(faults, key=lambda each: each.began_at),
        deaths=deaths,
    )
