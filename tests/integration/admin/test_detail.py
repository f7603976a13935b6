import json

import pytest
from django.contrib.auth.models import User
from django.test import override_settings

import flows
from flows.admin import detail, markup
from flows.domain.promise import Kind, State
from flows.store import promises, sql, trees
from tests.integration.admin.conftest import SCRIPT
from tests.integration.conftest import call, resolve, suspend

TREE = "/admin/flows/promise/p_2Fa_5Fb_3Ac/change/"
CHILD = "/admin/flows/promise/p_2Fa_5Fb_3Ac.0/change/"


def test_a_detail_shows_the_call_and_its_neighbours_and_escapes_what_is_stored(a_tree, content):
    parent, child = content(TREE), content(CHILD)
    assert CHILD in parent
    assert TREE in child
    assert State.REJECTED in child
    for page in (parent, child):
        assert SCRIPT not in page
        assert "&lt;script&gt;alert(1)" in page


def test_a_detail_says_what_it_waits_for(start, claim, content):
    start()
    parent = claim()
    suspend(parent, call(parent, 0), call(parent, 1, Kind.EXTERNAL, function="approval"))
    page = content("/admin/flows/promise/p/change/")
    assert "waits for 2 calls" in page
    assert "waits for somebody to settle it" in page


def test_history_tells_attempts_and_outcome_in_order(start, claim, content):
    start()
    resolve(claim())
    history = content("/admin/flows/promise/p/change/").partition("History")[2]
    places = [history.index(each) for each in ("started", "attempt 1 on node@test, pid 0: resolved", "✓ resolved")]
    assert places == sorted(places)


def test_a_live_page_asks_for_the_drawing_alone_until_all_has_ended(admin_client, start, claim):
    start()
    attempt = claim()

    def drawing():
        answer = admin_client.get("/admin/flows/promise/p/change/", headers={"HX-Request": "true"}).content.decode()
        assert answer.startswith("<section")
        return answer

    assert 'hx-trigger="every 1s"' in drawing()
    resolve(attempt)
    assert "hx-trigger" not in drawing()


def test_a_flow_that_is_deleted_while_its_page_is_made_is_gone(admin_client, start, claim, monkeypatch):
    start()
    resolve(claim())

    def read_then_delete(promise_id):
        tree = trees.read_tree(promise_id)
        assert flows.purge_tree(promise_id) == 1
        return tree

    monkeypatch.setattr(detail, "read_tree", read_then_delete)
    answer = admin_client.get("/admin/flows/promise/p/change/", follow=True)
    assert answer.redirect_chain == [("/admin/", 302)]
    assert "Perhaps it was deleted" in answer.content.decode()


def test_the_longest_id_is_whole_in_its_detail(start, content):
    longest = start("x" * 1000)
    assert f">{longest}<" in content(f"/admin/flows/promise/{longest}/change/")


@pytest.mark.parametrize("object_id", ["nobody", "a%00b"])
def test_a_promise_that_there_is_not_leads_home(admin_client, object_id):
    response = admin_client.get(f"/admin/flows/promise/{object_id}/change/")
    assert (response.status_code, response["Location"]) == (302, "/admin/")


def test_a_node_that_is_gone_and_other_loose_ends_break_nothing(a_tree, content):
    sql.rows("DELETE FROM flows_node")
    sql.rows("UPDATE flows_promise SET id = 'p', parent_id = 'gone', root_id = 'gone' WHERE parent_id IS NOT NULL")
    assert "/admin/flows/promise/gone/change/" in content("/admin/flows/promise/p/change/")


def test_what_is_too_long_for_a_page_is_downloaded_whole(admin_client, start, content):
    long = "x" * 2 * markup.MAX_SHOWN
    start("p", long)
    page = content("/admin/flows/promise/p/change/")
    assert "more characters" in page
    assert long not in page
    answer = admin_client.get("/admin/flows/promise/p/download/args/")
    assert json.loads(answer.content) == promises.get("p").args == [long]
    assert answer["Content-Disposition"] == 'attachment; filename="p-args.json"'


@pytest.mark.parametrize("path", ["p/download/id/", "nobody/download/args/"])
def test_nothing_else_can_be_downloaded(admin_client, start, path):
    start()
    assert admin_client.get(f"/admin/flows/promise/{path}").status_code == 404


def test_a_task_is_linked_to_flower_if_there_is_one(a_tree, content):
    assert "In Flower" not in content(TREE)
    with override_settings(FLOWS={"FLOWER_URL": "https://flower.example.org/"}):
        assert 'href="https://flower.example.org/task/p%2Fa_b%3Ac"' in content(TREE)


def test_nothing_can_be_changed_or_deleted(admin_client, a_tree):
    admin_client.post(TREE, {"state": "resolved"})
    assert promises.get("p/a_b:c").state is State.PENDING
    assert admin_client.post("/admin/flows/promise/p_2Fa_5Fb_3Ac/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("path", [TREE, "/admin/flows/promise/p_2Fa_5Fb_3Ac/download/args/"])
def test_who_may_not_view_promises_sees_none(client, a_tree, path):
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert client.get(path).status_code == 403
