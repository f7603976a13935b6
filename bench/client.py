"""The client process of one side: `python -m bench.client SIDE` reads what to do, a JSON object a line, and times it.

The same process times all systems in the same way: from the first start to the last outcome known here.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.system import Outcome
from bench.systems import SIDES

Start = Callable[..., Outcome]
ENOUGH_S = 4


def one_at_a_time(start: Start, args: Sequence[int], expected: object, times: int) -> list[float]:
    """Return how many seconds each took; fewer of them if that takes too long."""
    took_s: list[float] = []
    while len(took_s) < times and sum(took_s) < ENOUGH_S:
        took_s += at_once(start, args, expected, 1)
    return took_s


def at_once(start: Start, args: Sequence[int], expected: object, times: int) -> list[float]:
    """Return how many seconds all together took, as the only one of a list."""
    began = time.perf_counter()
    outcomes = [start(*args) for _ in range(times)]
    for outcome in outcomes:
        value = outcome()
        if value != expected:
            raise RuntimeError(f"{start} gave {value!r} instead of {expected!r}")
    return [time.perf_counter() - began]


WAYS = {way.__name__: way for way in (one_at_a_time, at_once)}


def main(side: str) -> None:
    # Whatever prints goes to the log: standard output is for answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    client = SIDES[side].client()
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        start = getattr(client, asked["call"])
        print(json.dumps(WAYS[asked["way"]](start, asked["args"], asked["expected"], asked["times"])), file=answers)


if __name__ == "__main__":
    main(sys.argv[1])
