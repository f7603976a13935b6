"""The kit can fail: it finds what is broken on purpose."""

import pytest
from django.db import IntegrityError

from flows.domain.promise import Phase, State
from tests.simulation import world as kit
from tests.simulation.generated import GROUPS, interpret, new_effects
from tests.simulation.store import Store
from tests.simulation.table import InvariantError
from tests.simulation.world import Faults, StuckError, World

PROGRAM = [["atomic"], ["gather", [[["atomic"], ["step"]], [["sleep", 1]]]], ["call", [["step"]]], ["atomic"]]
ROUGH = Faults(crash=0.03, pause=0.05, freeze=0.05, lost=0.1, doubled=0.1, refused=0.1)


def _run(*, seed=0, faults=None, crash_at=0):
    effects = new_effects()
    world = World(GROUPS, seed=seed, faults=faults, transaction=effects.transaction)
    promise = world.run("flow", interpret, PROGRAM, crash_at=crash_at)
    return world, promise.state, effects


def _last(where: str) -> int:
    """Return the number of the last boundary of that name in a run without faults."""
    return max(number for number, name in enumerate(_run()[0].boundaries, start=1) if name == where)


def test_same_seed_same_run():
    first, again, other = (_run(seed=seed, faults=ROUGH)[0] for seed in (5, 5, 6))

    assert first.trace == again.trace
    assert first.boundaries == again.boundaries
    assert first.trace != other.trace


def test_every_fault_strikes():
    happened = {what for seed in range(20) for _, what, _ in _run(seed=seed, faults=ROUGH)[0].trace}

    assert happened >= {"crash", "freeze", "fenced", "broken off", "Suspended", "Resolved"}


def test_without_the_holder_a_late_worker_writes_what_has_settled(monkeypatch):
    monkeypatch.setattr(Store, "_holds", lambda self, claim: True)

    found = []
    for seed in range(20):
        try:
            _run(seed=seed, faults=ROUGH)
        except (IntegrityError, InvariantError) as error:  # a late worker may make a call again, too
            found.append(str(error))

    assert any("has settled, resolved, and is written again" in each for each in found)


def test_without_the_fence_late_writes_are_found(monkeypatch):
    monkeypatch.setattr(Store, "_holds", lambda self, claim: claim.invocation.id in self.table.pending)

    with pytest.raises((IntegrityError, InvariantError), match="is there already|breaks: ready from when on"):
        for seed in range(20):
            _run(seed=seed, faults=ROUGH)


def test_a_parent_that_is_never_joined_hangs(monkeypatch):
    monkeypatch.setattr(Store, "_may_go_on", lambda self, row: False)

    assert _run()[1] is State.TIMEDOUT


def test_a_parent_that_is_woken_too_early_never_rests(monkeypatch):
    monkeypatch.setattr(Store, "_may_go_on", lambda self, row: row.phase is Phase.SUSPENDED)
    monkeypatch.setattr(kit, "MAX_STEPS", 500)

    with pytest.raises(StuckError, match="pending after 500 steps"):
        _run()


@pytest.mark.parametrize("where", ["before join", "expired, before join"])
def test_lost_wake_up_is_found_by_the_sweep(monkeypatch, where):
    crash_at = _last(where)
    assert _run(crash_at=crash_at)[1] is State.RESOLVED

    monkeypatch.setattr(Store, "join_missed", lambda self: [])
    assert _run(crash_at=crash_at)[1] is State.TIMEDOUT


def test_lost_messages_are_sent_again():
    assert _run(faults=Faults(lost=1.0, most=30))[1] is State.RESOLVED


def test_crashed_transaction_is_rolled_back():
    _, _, calm = _run()
    world, state, effects = _run(crash_at=_last("after atomic step, before its commit"))

    assert state is State.RESOLVED
    assert effects.written == calm.written
    assert world.losses == {"flow": 1}
