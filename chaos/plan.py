"""The flows of a run and their outcomes, worked out from the seed alone: no engine has a part in it."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

# Each flow may take this much longer than it would take undisturbed: a frozen node is found after 10 s, and several
# faults may hit one flow.
GRACE_S = 60.0
PER_SECOND = 4.0
AT_LEAST = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What becomes of a flow: its value, or the message of the error that it is rejected with.

    ``detached`` is how many calls it starts that nobody awaits; ``takes_s`` what it takes undisturbed, about.
    """

    value: Any = None
    error: str | None = None
    detached: int = 0
    takes_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One flow: when it starts, in seconds from the beginning, what is called, and what must come of it."""

    id: str
    shape: str
    at_s: float
    group: str
    function: str
    args: tuple[Any, ...]
    outcome: Outcome


Shape = Callable[[Random], tuple[str, str, tuple[Any, ...], Outcome]]


def plan(seed: int, seconds: float) -> list[Planned]:
    """Return the flows of a run, by their start: some per second, and at least 300 in all."""
    random = Random(f"{seed} flows")
    count = max(AT_LEAST, int(seconds * PER_SECOND))
    starts = sorted(random.uniform(0, seconds) for _ in range(count))
    return [_flow(random, number, at_s) for number, at_s in enumerate(starts)]


def _flow(random: Random, number: int, at_s: float) -> Planned:
    # The first ones take every shape in turn, so that none is missing however short the run.
    shapes = list(SHAPES)
    shape = shapes[number] if number < len(shapes) else random.choice(shapes)
    group, function, args, outcome = SHAPES[shape](random)
    prefix = "await-chain:" if shape == HTTP else ""
    return Planned(
        id=f"{prefix}{function}-{number}",
        shape=shape,
        at_s=at_s,
        group=group,
        function=function,
        args=args,
        outcome=outcome,
    )


def _chain(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    depth, number = random.randint(1, 6), random.randint(0, 99)
    return "north", "ping", (depth, number), Outcome(value=number + depth + 1)


def _fan(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    width, seconds = random.randint(10, 50), random.choice([0.0, 0.01, 0.1])
    return "north", "fan", (width, seconds), Outcome(value=width * (width - 1) // 2, takes_s=1 + width * seconds)


def _tree(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    depth, branches = random.randint(1, 2), random.randint(2, 3)
    return "north", "tree", (depth, branches), Outcome(value=sum(branches**level for level in range(depth + 1)))


def _detached(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    count = random.randint(1, 8)
    return "north", "scatter", (count,), Outcome(value=count, detached=count)


def _steps(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    count, seconds = random.randint(3, 20), random.choice([0.0, 0.01, 0.1, 0.5])
    value, takes_s = count * (count - 1) // 2, 1 + count * seconds
    return "north", "steps", (count, seconds), Outcome(value=value, takes_s=takes_s)


def _atomic(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    count = random.randint(2, 15)
    return "south", "ledger", (count,), Outcome(value=count * (count - 1) // 2)


def _sleeps(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    naps, seconds = random.randint(1, 3), random.choice([0.1, 1.0, 3.0])
    return "north", "nap", (naps, seconds), Outcome(value=True, takes_s=1 + naps * (seconds + 1))


def _race(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    number = random.randint(0, 99)
    return "north", "contest", (number,), Outcome(value=number + 1, takes_s=3)


def _approval(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    answer = random.choice([None, random.randint(0, 99)])
    return "north", "approval", (answer,), Outcome(value=-1 if answer is None else answer, takes_s=2)


def _retries(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    failures = random.randint(1, 4)
    return "north", "stubborn", (failures,), Outcome(value=3, takes_s=1 + 3 * failures)


def _caught(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    number = random.randint(0, 99)
    return "north", "forgiving", (number,), Outcome(value=f"no {number}, refuse, first")


def _rejected(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    message = f"told so {random.randint(0, 99)}"
    return "north", "doomed", (message,), Outcome(error=message)


def _mixed(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    width, amount = random.randint(2, 10), random.randint(0, 99)
    # Of a chain of two, each link adds one.
    answer = sum(number + 2 for number in range(width))
    return "north", "everything", (width, amount), Outcome(value=amount + answer, detached=1, takes_s=4)


def _http(random: Random) -> tuple[str, str, tuple[Any, ...], Outcome]:
    return "service-a", "foo", ("foo",), Outcome(value=3)


HTTP = "HTTP await-chain"
SHAPES: dict[str, Shape] = {
    "chain": _chain,
    "fan-out": _fan,
    "nesting": _tree,
    "detached": _detached,
    "steps": _steps,
    "atomic steps": _atomic,
    "sleeps": _sleeps,
    "races": _race,
    "approvals": _approval,
    "retries": _retries,
    "caught errors": _caught,
    "rejected": _rejected,
    "mixed": _mixed,
    HTTP: _http,
}
