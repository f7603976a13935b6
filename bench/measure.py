"""Measures systems in turn, round by round, so that whatever else the machine does falls on all of them alike."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from bench.installation import GaveUpError, Installation
from bench.system import System
from bench.workloads import Workload

# One list of seconds for each round.
Rounds = list[list[float]]
WARM_UP = 2
# Whoever took so long for a workload has no further round of it, except for the two that the ratio is about.
ENOUGH_S = 8
MAIN = "flows"


def measure(
    workload: Workload, systems: Sequence[System], installations: Mapping[str, Installation], rounds: int | None = None
) -> dict[str, Rounds]:
    """Return what each system that can do the workload took, by its name; fewer rounds of a slow one.

    Who gave up on an earlier workload is not asked any more.
    """
    able = [
        system for system in systems if workload.call in system.does and not installations[system.side.name].is_given_up
    ]
    measured: dict[str, Rounds] = {system.name: [] for system in able}
    for _ in range(rounds or workload.rounds):
        for system in able:
            installation = installations[system.side.name]
            is_main = system.name in (MAIN, workload.base)
            took_s = sum(sum(seconds) for seconds in measured[system.name])
            if (is_main or took_s < ENOUGH_S) and not installation.is_given_up:
                with suppress(GaveUpError):
                    measured[system.name].append(_round(workload, system, installation))
    return measured


def _round(workload: Workload, system: System, installation: Installation) -> list[float]:
    call = system.does[workload.call]
    with installation.turn():
        installation.ask("one_at_a_time", call, workload.warm_up, expected=workload.warm_up_expected, times=WARM_UP)
        return installation.ask(workload.way, call, workload.args, expected=workload.expected, times=workload.times)
