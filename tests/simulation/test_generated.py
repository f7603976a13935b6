from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from flows.domain.promise import Kind
from tests.simulation.generated import GROUPS, Program, interpret, new_effects, programs
from tests.simulation.world import Faults, World

EVERYTHING = Faults(crash=0.03, pause=0.05, freeze=0.03, lost=0.1, doubled=0.1, refused=0.1)


def _run(program: Program, seed: int, faults: Faults):
    effects = new_effects()
    world = World(GROUPS, seed=seed, faults=faults, answers={"signal": "given"}, transaction=effects.transaction)
    world.run("flow", interpret, program)
    return world, effects


def _outcomes(world: World):
    """What callers see: of the flow, and of each detached one."""
    rows = world.store.table.rows.values()
    return {
        row.id: (row.state, row.value, row.error and (row.error["type"], row.error["message"]))
        for row in rows
        if row.kind in (Kind.ROOT, Kind.DETACHED)
    }


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(program=programs(), seed=st.integers(0, 2**32))
def test_faults_change_no_outcome(program, seed):
    calm, calm_effects = _run(program, seed, Faults())
    rough, rough_effects = _run(program, seed, EVERYTHING)

    assert _outcomes(rough) == _outcomes(calm)
    assert not [what for _, what, _ in [*calm.trace, *rough.trace] if what == "SetAside"]
    # Each step once; again only if a claim of its promise was lost, with what was not committed yet.
    assert set(calm_effects.ran.values()) <= {1}
    assert rough_effects.ran.keys() == calm_effects.ran.keys()
    assert not {key: n for key, n in rough_effects.ran.items() if n > 1 + rough.losses[key.partition("#")[0]]}
    # What is written with its record, exactly once.
    assert Counter(rough_effects.written) == Counter(calm_effects.written)
    assert len(set(calm_effects.written)) == len(calm_effects.written)
