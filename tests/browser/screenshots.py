"""`make screenshots`: the pictures of docs/admin.md, anew; with ALL=1 every page in both themes and widths, to look at.

Not collected with the tests: it is run by its name.
"""

import os
from pathlib import Path

import pytest

import flows
from flows.models import Promise
from local.process import ROOT
from tests.orders.flows import Order, fulfil
from tests.orders.parade import deliver
from tests.waiting import wait_until

ADMIN = "/admin/flows/promise/"
PAGES = {
    "list": ADMIN,
    "detail": f"{ADMIN}order-1001/change/",
    "live": "/trees/order-1002",
    "overview": f"{ADMIN}overview/",
    "confirm": f"{ADMIN}do/cancel/?id=order-1002",
}
WIDE, NARROW = 1280, 760
DOCUMENTED = [
    ("list", "light", WIDE),
    ("detail", "light", WIDE),
    ("live", "dark", WIDE),
    ("overview", "light", WIDE),
    ("confirm", "light", NARROW),
]
EVERY = [(page, theme, width) for page in PAGES for theme in ("light", "dark") for width in (WIDE, NARROW)]
MAX_BYTES = 150_000


def approval_of(order):
    return wait_until(lambda: Promise.objects.filter(parent=order, kind="external").first()).id


@pytest.fixture
def flows_to_show(workers):
    """Flows in every state: some that ended, one that waits for somebody."""
    for number in range(8):
        flows.begin_rpc(f"basket-{number}", fulfil, Order(id=f"b{number}", items=["pear", "apple"], amount=7))
    for order in ("order-1001", "order-1002"):
        flows.begin_rpc(order, deliver, order, 40, tags={"customer": "acme"})
    flows.begin_rpc("stray", "reserve", "unicorn", target="suppliers")
    approvals = {
        order: approval_of(order) for order in ("basket-1", "basket-2", "basket-3", "order-1001", "order-1002")
    }
    flows.cancel("basket-1")
    flows.reject(approvals["basket-2"], "too dear")
    flows.resolve(approvals["basket-3"], "yes")
    flows.resolve(approvals["order-1001"], "yes")
    wait_until(lambda: flows.get("order-1001").is_settled)


@pytest.mark.timeout(600)
def test_make_screenshots(flows_to_show, open_as, watched, tmp_path):
    every = "ALL" in os.environ
    folder = Path(os.environ["ALL"]) if every else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for name, theme, width in EVERY if every else DOCUMENTED:
        page = open_as(PAGES[name], theme=theme, width=width)
        target = folder / (f"{name}-{theme}-{width}.png" if every else f"{name}.png")
        page.screenshot(path=target, full_page=every)
        page.close()
        assert every or target.stat().st_size < MAX_BYTES, f"{target.name} is too large"
