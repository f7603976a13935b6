import pytest

from flows.admin import lists, pages
from flows.domain.promise import State
from flows.engine.decision import Rejected
from flows.models import Promise
from flows.store import outcomes, sql
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, suspend

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def a_tree(start, claim):
    start("p/a_b:c", SCRIPT)
    parent = claim("p/a_b:c")
    suspend(parent, call(parent, 0))
    child = claim("p/a_b:c.0", "child")
    error = {"type": "ValueError", "message": SCRIPT, "traceback": SCRIPT, "cause": None}
    outcomes.commit([Outcome(claim=child, decision=Rejected(error=error, exception=ValueError()))])


def listed(admin_client, **query):
    return [promise.id for promise in admin_client.get("/admin/flows/promise/", query).context["cl"].queryset]


@pytest.mark.parametrize("model", ["promise", "attempt", "node"])
def test_lists_are_read_only_and_searchable_by_prefix(admin_client, a_tree, model, django_assert_max_num_queries):
    with django_assert_max_num_queries(9):
        page = admin_client.get(f"/admin/flows/{model}/", {"q": "p"})
    assert page.status_code == 200
    assert "Add" not in page.content.decode().partition("<main")[2].partition("</main")[0]
    assert admin_client.get(f"/admin/flows/{model}/add/").status_code == 403


def test_search_is_by_the_beginning_of_the_id(admin_client, a_tree):
    found = admin_client.get("/admin/flows/promise/", {"q": "p/a_b:c.0"}).context["cl"].queryset
    assert [promise.id for promise in found] == ["p/a_b:c.0"]
    assert not admin_client.get("/admin/flows/promise/", {"q": ".0"}).context["cl"].queryset.exists()


def test_an_exact_match_comes_first(admin_client, start):
    for promise_id in ("p.b", "p", "p.a"):
        start(promise_id)
    assert listed(admin_client, q="p") == ["p", "p.a", "p.b"]
    assert listed(admin_client) == ["p.a", "p", "p.b"]


@pytest.mark.parametrize(("state", "expected"), [("timedout", ["late"]), ("pending", ["p"]), ("resolved", [])])
def test_a_promise_past_its_deadline_has_timed_out_before_anybody_wrote_it(admin_client, start, state, expected):
    start()
    start("late")
    sql.rows("UPDATE flows_promise SET deadline_at = now() - interval '1 hour' WHERE id = 'late'")
    assert listed(admin_client, state=state) == expected
    assert "⌛ timedout" in admin_client.get("/admin/flows/promise/late/change/").content.decode()
    assert Promise.objects.get(pk="late").state == State.PENDING


def test_groups_to_filter_by_are_those_that_are_known(admin_client, start):
    start()
    page = admin_client.get("/admin/flows/promise/", {"group": "service-a"})
    assert "?group=service-i" in page.content.decode()
    assert not page.context["cl"].queryset.exists()


@pytest.mark.parametrize("page", ["", "p/change/"])
def test_a_node_that_is_gone_and_other_loose_ends_break_nothing(admin_client, a_tree, page):
    sql.rows("DELETE FROM flows_node")
    sql.rows("UPDATE flows_promise SET id = 'p', parent_id = 'gone', root_id = 'gone' WHERE parent_id IS NOT NULL")
    assert admin_client.get(f"/admin/flows/promise/{page}").status_code == 200


def test_the_longest_id_is_shortened_in_lists_and_whole_in_its_detail(admin_client, start):
    longest = start("x" * 1000)
    assert f">{'x' * 30}…{'x' * 30}</span>" in admin_client.get("/admin/flows/promise/").content.decode()
    assert f">{longest}<" in admin_client.get(f"/admin/flows/promise/{longest}/change/").content.decode()


@pytest.mark.parametrize("object_id", ["nobody", "a%00b"])
def test_a_promise_that_there_is_not_leads_home(admin_client, object_id):
    response = admin_client.get(f"/admin/flows/promise/{object_id}/change/")
    assert (response.status_code, response["Location"]) == (302, "/admin/")


def test_what_is_too_much_for_a_page_is_linked(admin_client, start, claim, monkeypatch):
    start()
    parent = claim()
    suspend(parent, *(call(parent, position) for position in range(3)))
    monkeypatch.setattr(pages, "MAX_LISTED", 2)
    detail = admin_client.get("/admin/flows/promise/p/change/").content.decode()
    assert "p.1" in detail
    assert "p.2" not in detail
    assert '<a href="/admin/flows/promise/?parent=p">all of them</a>' in detail
    assert sorted(listed(admin_client, parent="p")) == ["p.0", "p.1", "p.2"]


def test_rows_are_counted_up_to_a_bound(admin_client, start, monkeypatch):
    for number in range(3):
        start(f"p{number}")
    monkeypatch.setattr(lists, "MAX_COUNTED", 2)
    assert admin_client.get("/admin/flows/promise/", {"q": "p"}).context["cl"].result_count == 2


def test_nodes_show_whether_they_live_and_what_they_run(admin_client, start, claim):
    start()
    claim()
    (node,) = admin_client.get("/admin/flows/node/").context["cl"].queryset
    assert (node.alive, node.claim_count) == (True, 1)
    sql.rows("UPDATE flows_node SET lease_until = now() - interval '1 second'")
    (node,) = admin_client.get("/admin/flows/node/").context["cl"].queryset
    assert not node.alive


def test_a_detail_shows_the_call_and_its_neighbours_and_escapes_what_is_stored(admin_client, a_tree):
    parent = admin_client.get("/admin/flows/promise/p_2Fa_5Fb_3Ac/change/").content.decode()
    assert "/admin/flows/promise/p_2Fa_5Fb_3Ac.0/change/" in parent
    child = admin_client.get("/admin/flows/promise/p_2Fa_5Fb_3Ac.0/change/").content.decode()
    assert State.REJECTED in child
    assert "/admin/flows/promise/p_2Fa_5Fb_3Ac/change/" in child
    for page in (parent, child):
        assert SCRIPT not in page
        assert "&lt;script&gt;alert(1)" in page


def test_nothing_can_be_changed_or_deleted(admin_client, a_tree):
    assert admin_client.post("/admin/flows/promise/p_2Fa_5Fb_3Ac/change/", {"state": "resolved"}).status_code == 403
    assert admin_client.post("/admin/flows/promise/p_2Fa_5Fb_3Ac/delete/", {"post": "yes"}).status_code == 403
