"""Whatever is done to the store, in whatever order, no invariant breaks; and a store that is broken is found."""

import pytest
from django.db import IntegrityError

from flows.domain.promise import Phase, State
from tests.simulation.machine import EFFECTS, run
from tests.simulation.store import Store
from tests.simulation.table import InvariantError


def test_every_operation_has_each_of_its_effects_and_breaks_nothing():
    assert sorted(EFFECTS - run(Store, examples=250)) == []


class Unfenced(Store):
    def _holds(self, claim):
        return claim.invocation.id in self.table.pending


class Forgetful(Store):
    def _is_open(self, row):
        return True


class Deaf(Store):
    def join_missed(self, limit=1000):
        return super().join_missed(0)


class Hasty(Store):
    def _may_go_on(self, row):
        return row.phase is Phase.SUSPENDED


class Mute(Store):
    def take_unsent(self, groups, addresses, limit=10):
        return super().take_unsent(groups[:1], addresses, limit)


class Blind(Store):
    def _is_for(self, row, holder):
        return not row.addressee


class Fickle(Store):
    def settle(self, promise_id, state, *, value=None, error=None):
        row = self.table.rows.get(promise_id)
        if row is None or row.parent_id is None or row.state is State.PENDING:
            return super().settle(promise_id, state, value=value, error=error)
        self.table.reopen(row, state=state, value=value, error=error)
        return row.parent_id


@pytest.mark.parametrize("broken", [Unfenced, Forgetful, Deaf, Hasty, Mute, Blind, Fickle])
def test_a_broken_store_is_found(broken):
    with pytest.raises((AssertionError, IntegrityError, InvariantError, ExceptionGroup)):
        run(broken, twin=broken, examples=250)
