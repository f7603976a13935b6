"""One run of the bench: its servers, what was asked for, and how installations are started in it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.installation import Installation, Setting
from bench.measure import measure
from bench.rows import Row, rows
from bench.system import System
from bench.workloads import Workload
from local.servers import Servers

Installations = dict[str, Installation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """``only`` names workloads, or families of them, ``reps`` is how many rounds each has; None: as it comes."""

    servers: Servers
    folder: Path
    systems: Sequence[System]
    only: Sequence[str] | None
    reps: int | None

    def wants(self, workload: str) -> bool:
        """Tell whether the workload was asked for, by its name or by that of its family, W3 of W3-100."""
        return self.only is None or bool({workload, workload.partition("-")[0]} & set(self.only))

    def compare(
        self, setting: Setting, workloads: Sequence[Sequence[Workload]], systems: Sequence[System]
    ) -> Iterator[Row]:
        """Measure systems side by side, those that were asked for, in what they can do.

        Workloads that stand together are measured in turn.
        """
        wanted = [[workload for workload in together if self.wants(workload.name)] for together in workloads]
        calls = {workload.call for together in wanted for workload in together}
        able = [system for system in systems if system in self.systems and calls & system.does.keys()]
        if not able:
            return
        with self.installed(able, setting) as installations:
            for together in filter(None, wanted):
                yield from self.rows(together, setting, able, installations)

    def rows(
        self, workloads: Sequence[Workload], setting: Setting, systems: Sequence[System], installations: Installations
    ) -> list[Row]:
        """Measure workloads in turn, on installations that run."""
        measured = measure(workloads, systems, installations, self.reps)
        return [row for workload in workloads for row in rows(workload, str(setting), measured[workload.name])]

    @contextmanager
    def installed(self, systems: Sequence[System], setting: Setting) -> Iterator[Installations]:
        """Start the sides of the systems together, and freeze each as soon as it is ready."""
        sides = {system.side.name: system.side for system in systems}
        with ExitStack() as stack:
            installations = {
                name: stack.enter_context(Installation(side, self.servers, setting, self.folder / str(setting) / name))
                for name, side in sides.items()
            }
            for installation in installations.values():
                installation.make_ready()
            yield installations
