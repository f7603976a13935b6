import pytest

from flows.domain.promise import State
from flows.engine.decision import Rejected
from flows.store import outcomes
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
