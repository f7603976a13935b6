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
    workloads: Sequence[Workload],
    systems: Sequence[System],
    installations: Mapping[str, Installation],
    rounds: int | None = None,
) -> dict[str, dict[str, Rounds]]:
    """Return what each system that can do a workload took, by the name of the workload and its own.

    Several workloads take turns, too, round by round. A slow system has fewer rounds; who gave up is asked no more.
    """
    measured: dict[str, dict[str, Rounds]] = {
        workload.name: {
            system.name: []
            for system in systems
            if workload.call in system.does and not installations[system.side.name].is_given_up
        }
        for workload in workloads
    }
    for number in range(rounds or max(workload.rounds for workload in workloads)):
        for workload in workloads:
            if number < (rounds or workload.rounds):
                _all_systems_once(workload, systems, installations, measured[workload.name])
    return measured


def _all_systems_once(
    workload: Workload,
    systems: Sequence[System],
    installations: Mapping[str, Installation],
    measured: dict[str, Rounds],
) -> None:
    for system in systems:
        installation = installations[system.side.name]
        if system.name not in measured or installation.is_given_up:
            continue
        is_main = system.name in (MAIN, workload.base)
        if is_main or sum(map(sum, measured[system.name])) < ENOUGH_S:
            with suppress(GaveUpError):
                measured[system.name].append(_round(workload, system, installation))


def _round(workload: Workload, system: System, installation: Installation) -> list[float]:
    call = system.does[workload.call]
    with installation.turn():
        installation.ask("one_at_a_time", call, workload.warm_up, expected=workload.warm_up_expected, times=WARM_UP)
        return installation.ask(workload.way, call, workload.args, expected=workload.expected, times=workload.times)
