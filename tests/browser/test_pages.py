import re

import pytest
from playwright.sync_api import expect

import flows
from flows.models import Promise
from flows.store import sql
from tests.orders.flows import Order, fulfil
from tests.orders.parade import deliver
from tests.waiting import wait_until

ADMIN = "/admin/flows/promise/"


def begin(order_id, boxes=12):
    """Begin a delivery; return when it waits for somebody."""
    handle = flows.begin_rpc(order_id, deliver, order_id, boxes)
    approval = wait_until(lambda: Promise.objects.filter(parent=order_id, kind="external").first())
    return handle, approval.id


def test_the_list_is_searched_and_leads_to_a_promise(open_as):
    for number in range(3):
        flows.begin_rpc(f"order-{number}", fulfil, Order(id="o", items=["apple"], amount=5))
    page = open_as(ADMIN)
    expect(page.locator("#result_list tbody tr")).to_have_count(3)
    page.fill("#searchbar", "order-1")
    page.press("#searchbar", "Enter")
    page.get_by_role("link", name="order-1", exact=True).click()
    expect(page.locator("h1.fl-id")).to_have_text("order-1")


def test_the_tree_of_a_running_flow_goes_on_by_itself_and_rests_when_it_has_ended(open_as):
    handle = flows.begin_rpc("order", deliver, "order", 12)
    page = open_as(f"{ADMIN}order/change/")
    page.evaluate("window.same = true")
    tree = page.locator("#fl-tree")
    expect(tree).to_contain_text("pick \N{MULTIPLICATION SIGN} 12")
    expect(tree).to_contain_text("waits for somebody to settle it")
    flows.resolve(Promise.objects.get(parent="order", kind="external").id, "yes")
    assert handle.result(20) == "order shipped"
    expect(tree).to_contain_text("Ended.")
    assert page.locator("#fl-tree[hx-get]").count() == 0
    assert page.evaluate("window.same")


def test_siblings_unfold_and_fold_by_keyboard_and_the_address_keeps_it(open_as):
    begin("order")
    page = open_as("/trees/order", "view_promise")
    toggle = page.get_by_label("What pick called, level 2").first
    expect(toggle).to_have_attribute("aria-expanded", "false")
    toggle.focus()
    page.keyboard.press("Enter")
    expect(toggle).to_have_attribute("aria-expanded", "true")
    expect(page.get_by_text("LookupError: shelf 7 is empty")).to_have_count(2)
    expect(toggle).to_be_focused()
    page.reload()
    expect(toggle).to_have_attribute("aria-expanded", "true")
    page.go_back()
    expect(toggle).to_have_attribute("aria-expanded", "false")


def test_somebody_approves_what_a_flow_waits_for(open_as):
    handle, approval = begin("order")
    page = open_as(f"{ADMIN}order/change/")
    page.get_by_role("link", name=approval, exact=True).click()
    page.get_by_role("link", name="Resolve", exact=True).click()
    page.get_by_label("Value, as JSON").fill("yes")
    page.get_by_label("Reason").fill("the customer is known")
    page.get_by_role("button", name="Yes, resolve").click()
    expect(page.locator(".errornote")).to_contain_text("This is not JSON")
    page.get_by_label("Value, as JSON").fill('"yes"')
    page.get_by_role("button", name="Yes, resolve").click()
    expect(page.locator(".messagelist")).to_have_text(f"Resolved: {approval}.")
    expect(page.locator(".fl-history")).to_contain_text("Reason: the customer is known (admin)")
    assert handle.result(20) == "order shipped"


def test_somebody_cancels_a_tree(open_as):
    handle, approval = begin("order")
    page = open_as(f"{ADMIN}order/change/")
    page.get_by_role("link", name="Cancel", exact=True).click()
    expect(page.locator("#content")).to_contain_text("Below it 1 call is pending: it goes with it.")
    page.get_by_label("Reason").fill("ordered twice")
    page.get_by_role("button", name="Yes, cancel").click()
    expect(page.locator(".fl-lead")).to_contain_text("canceled")
    assert {handle.state, flows.get(approval).state} == {flows.State.CANCELED}


def test_who_may_only_view_is_offered_nothing_and_refused(open_as, watched):
    _, approval = begin("order")
    page = open_as(f"{ADMIN}{approval}/change/", "view_promise")
    expect(page.locator(".fl-lead")).to_contain_text("pending")
    assert page.get_by_role("link", name=re.compile("Resolve|Cancel")).count() == 0
    watched.expected = {403, 404}  # the icon of a page that is none of ours
    answer = page.goto(f"{watched.url}{ADMIN}do/resolve/?id={approval}")
    assert answer is not None
    assert answer.status == 403


def test_the_overview_goes_on_by_itself(open_as):
    begin("order")
    page = open_as(f"{ADMIN}overview/")
    expect(page.locator(".fl-groups")).to_contain_text("0 nodes")
    before = page.locator(".fl-summary").first.inner_text()
    expect(page.locator(".fl-summary").first).not_to_have_text(before)


@pytest.mark.parametrize(("theme", "rules"), [("light", []), ("dark", ["color-contrast"])])
def test_no_page_keeps_anybody_out(open_as, watched, findings, theme, rules):
    _, approval = begin("order")
    page = open_as(ADMIN, theme=theme)
    found = {ADMIN: findings(page, *rules)}
    for path in (
        f"{ADMIN}order/change/?flip=order.3*",
        f"{ADMIN}{approval}/change/",
        f"{ADMIN}do/resolve/?id={approval}",
        f"{ADMIN}do/cancel/?id=order",
        f"{ADMIN}overview/",
        "/trees/order",
        "/admin/flows/",
    ):
        page.goto(watched.url + path)
        found[path] = findings(page, *rules)
    assert {path: each for path, each in found.items() if each} == {}


SCRIPT = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"' onload=window.hacked=1 x='"
INJECT = """
UPDATE flows_promise SET function = left(%(script)s, 150), args = %(json)s::json, note = %(script)s,
    tags = json_build_object(%(script)s::text, %(script)s::text), "group" = left(%(script)s, 100),
    error = json_build_object('type', %(script)s::text, 'message', %(script)s::text, 'traceback', %(script)s::text,
        'cause', NULL), state = 'rejected', settled_at = now(), phase = ''
WHERE id = 'order'
"""


def test_nothing_that_is_stored_is_executed(open_as, watched):
    flows.begin_rpc("order", "foo", "foo", target="service-a")
    evil = "order'\"><script>window.hacked=1</script>"
    sql.rows(INJECT, script=SCRIPT, json='["</script><script>window.hacked=1</script>"]')
    flows.begin_rpc("other", "foo", "foo", target="service-a")
    sql.rows("UPDATE flows_promise SET id = %(id)s, root_id = %(id)s, parent_id = 'order' WHERE id = 'other'", id=evil)
    page = open_as(ADMIN + "?role=all")
    watched.expected = {404}
    for path in (
        f"{ADMIN}order/change/",
        f"{ADMIN}overview/",
        f"{ADMIN}do/purge/?id=order",
        f"{ADMIN}?q=order",
        "/trees/order",
        "/trees/order%27%22%3E%3Cscript%3Ewindow.hacked=1%3C/script%3E",
        f"{ADMIN}order/change/?flip=%22%3E%3Cscript%3Ewindow.hacked=1%3C/script%3E",
    ):
        page.goto(watched.url + path)
        expect(page.locator("body")).to_contain_text("window.hacked" if "overview" not in path else "Overview")
        assert page.evaluate("window.hacked") is None
