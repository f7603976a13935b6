import pytest
from django.contrib.auth.models import Permission, User

from tests.integration.conftest import call, suspend


@pytest.fixture
def viewer(client, transactional_db):
    """Somebody who may view promises and is no staff."""
    user = User.objects.create_user("viewer")
    user.user_permissions.add(Permission.objects.get(codename="view_promise"))
    client.force_login(user)
    return client


def test_a_tree_is_a_page_for_those_who_may_view_promises(viewer, start, claim):
    start("a/b:c")
    parent = claim("a/b:c")
    suspend(parent, call(parent, 0))
    page = viewer.get("/trees/a/b:c").content.decode()
    assert 'href="/trees/a/b:c.0"' in page
    assert page.startswith("<!DOCTYPE html>")
    assert viewer.get("/trees/a/b:c", headers={"HX-Request": "true"}).content.decode().startswith("<section")


def test_a_stranger_has_to_log_in_and_others_are_refused(client, start):
    start()
    assert client.get("/trees/p")["Location"] == "/admin/login/?next=/trees/p"
    client.force_login(User.objects.create_user("stranger", is_staff=True))
    assert client.get("/trees/p").status_code == 403


def test_a_tree_that_there_is_not(viewer):
    assert viewer.get("/trees/nobody").status_code == 404


def test_what_is_stored_is_escaped(viewer, start):
    start("p", "x")
    from flows.store import sql

    sql.rows("UPDATE flows_promise SET function = '<img src=x>', note = '<script>', \"group\" = '\"><b>'")
    page = viewer.get("/trees/p").content.decode()
    assert "<img" not in page
    assert "<b>" not in page
    assert page.count("<script") == 2
