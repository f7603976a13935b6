"""The example app in the simulation, its writes in the real database."""

from datetime import timedelta

import pytest
from django.db import transaction

from flows.domain.errors import Refused
from tests.orders.flows import Order, fulfil
from tests.orders.models import Payment
from tests.simulation.world import Faults, World

BOOKS = ["book", "pen"]
OUTCOMES = {
    "shipped": ({"approval": True}, BOOKS, "o-1 shipped: one book, one pen", [30]),
    "paid back": ({"approval": True}, [*BOOKS, "unicorn"], "paid back: no unicorn in stock", [30, -30]),
    "refused": ({"approval": Refused("too dear")}, BOOKS, "not approved", []),
    "nobody approves": ({}, BOOKS, "not approved", []),
}

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.parametrize(("answers", "items", "value", "payments"), OUTCOMES.values(), ids=OUTCOMES.keys()),
]


def _fulfil(answers, items, *, crash_at=0, seed=0, faults=None):
    """Run the flow; return the world, its value, and the payments that there are now."""
    Payment.objects.all().delete()
    world = World(["orders", "suppliers"], seed=seed, faults=faults, answers=answers, transaction=transaction.atomic)
    order = Order(id="o-1", items=items, amount=30)
    promise = world.run("order", fulfil, order, crash_at=crash_at, timeout=timedelta(days=3))
    return world, promise.value, list(Payment.objects.order_by("id").values_list("amount", flat=True))


@pytest.mark.parametrize("seed", range(3))
def test_crash_at_every_boundary_changes_nothing(answers, items, value, payments, seed):
    calm, *outcome = _fulfil(answers, items, seed=seed)
    assert outcome == [value, payments]

    for crash_at, where in enumerate(calm.boundaries, start=1):
        world, *outcome = _fulfil(answers, items, seed=seed, crash_at=crash_at)
        assert [what for _, what, _ in world.trace].count("crash") == 1
        assert outcome == [value, payments], f"crashed at boundary {crash_at}, {where}"


def test_crashes_and_lost_messages_at_random_change_nothing(answers, items, value, payments):
    faults = Faults(crash=0.05, lost=0.2, doubled=0.2, refused=0.2)
    for seed in range(50):
        _, *outcome = _fulfil(answers, items, seed=seed, faults=faults)
        assert outcome == [value, payments], f"seed {seed}"
