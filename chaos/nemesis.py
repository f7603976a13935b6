"""Injects faults in two lanes, for processes and for servers and messages, in an order that the seed decides."""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from chaos import faults
from chaos.faults import Fault, World

log = logging.getLogger(__name__)

# Between the end of a fault and the next one of the lane, in seconds.
PAUSE_S = (2.0, 6.0)

PROCESS_FAULTS: dict[str, tuple[Fault, int]] = {
    "pool process killed": (faults.kill_pool_process, 3),
    "node killed": (faults.kill_node, 1),
    "main process killed": (faults.kill_main_process, 1),
    "node stopped": (faults.stop_node, 1),
    "node frozen": (faults.freeze_node, 1),
    "gateway killed": (faults.kill_gateway, 1),
}
SERVER_FAULTS: dict[str, tuple[Fault, int]] = {
    "Redis killed": (faults.kill_redis, 1),
    "Redis flushed": (faults.flush_redis, 1),
    "Redis frozen": (faults.freeze_redis, 1),
    "Redis connections closed": (faults.cut_redis, 1),
    "PostgreSQL restarted": (faults.restart_postgres, 1),
    "PostgreSQL sessions ended": (faults.cut_postgres, 1),
    "PostgreSQL down": (faults.stop_postgres, 1),
    "messages doubled": (faults.double_messages, 1),
    "messages dropped": (faults.drop_messages, 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """One fault that happened. Times are those of `time.time()`; ``pids`` are the processes that it hit."""

    kind: str
    what: str
    began_at: float
    ended_at: float
    pids: frozenset[int]


class Lane:
    """Injects one fault after another, each kind once in each round, in an order of its own."""

    def __init__(self, name: str, kinds: dict[str, tuple[Fault, int]], world: World, seed: int) -> None:
        self.injected: list[Injected] = []
        self.violations: list[str] = []
        self._kinds = kinds
        self._world = world
        self._random = Random(f"{seed} {name}")
        self._name = name

    def run(self, until: float, over: threading.Event) -> None:
        """Inject faults until the monotonic time, in this thread: servers die with the thread that started them."""
        for kind in self._rounds():
            pause_s = self._random.uniform(*PAUSE_S)
            if over.wait(pause_s) or time.monotonic() >= until:
                return
            self._inject(kind)

    def _rounds(self) -> Iterator[str]:
        round_ = [kind for kind, (_, times) in self._kinds.items() for _ in range(times)]
        while True:
            yield from self._random.sample(round_, k=len(round_))

    def _inject(self, kind: str) -> None:
        fault, _ = self._kinds[kind]
        # Its own randomness: what one fault draws must not change the order of the next ones.
        random = Random(self._random.random())
        began_at = time.time()
        try:
            damage = fault(self._world, random)
        except Exception as error:
            log.exception("%s failed", kind)
            self.violations.append(f"the fault {kind!r} could not be injected: {type(error).__name__}: {error}")
            return
        log.info("%s: %s", kind, damage.what)
        self.injected.append(
            Injected(
                kind=kind,
                what=damage.what,
                began_at=damage.began_at or began_at,
                ended_at=time.time(),
                pids=damage.pids,
            )
        )
