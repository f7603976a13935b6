"""Watches for nodes that end although nobody killed or stopped them."""

import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from chaos.faults import World, families
from chaos.nemesis import Injected

LOOK_S = 0.2
KIND = "node ended by itself"


class Deaths:
    """Looks at all nodes again and again, until the `with` block is left."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ended: list[Injected] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="deaths")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def unexplained(self, faults: Iterable[Injected]) -> list[Injected]:
        """Return the ends that were no fault's doing, each with what had been done last before it."""
        hit = {pid for fault in faults if fault.kind != "node frozen" for pid in fault.pids}
        ends = [end for end in self._ended if not end.pids & hit]
        return [self._with_cause(end, faults) for end in ends]

    def _with_cause(self, end: Injected, faults: Iterable[Injected]) -> Injected:
        before = max((each for each in faults if each.began_at < end.ended_at), key=_began_at, default=None)
        what = f"{end.ended_at - before.began_at:.1f} s after: {before.kind}" if before else end.what
        return Injected(kind=KIND, what=what, began_at=end.began_at, ended_at=end.ended_at, pids=end.pids)

    def _watch(self) -> None:
        known = families(self._world)
        looked_at = time.time()
        while not self._done.wait(LOOK_S):
            found, now = families(self._world), time.time()
            self._ended += [
                Injected(kind=KIND, what="", began_at=looked_at, ended_at=now, pids=pids)
                for main, pids in known.items()
                if main not in found
            ]
            # The pool of a node that is about to end is gone before its main process: keep what was seen.
            known = {main: pids | known.get(main, frozenset()) for main, pids in found.items()}
            looked_at = now


def _began_at(fault: Injected) -> float:
    return fault.began_at
