import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User

from flows import PromiseNotFound, operations
from flows.admin import actions
from flows.domain.promise import Kind, Phase, State
from flows.store import promises, sql
from tests.integration.conftest import call, resolve, suspend

DO = "/admin/flows/promise/do"


@pytest.fixture
def a_flow(start, claim):
    """A flow that waits for a call and for somebody."""
    start("p")
    parent = claim("p")
    suspend(parent, call(parent, 0), call(parent, 1, Kind.EXTERNAL, function="approval"))


@pytest.fixture
def do(admin_client):
    """Confirm an action; return what the user is told."""

    def do(name, *ids, **fields):
        answer = admin_client.post(f"{DO}/{name}/", {"id": ids, "reason": "because", **fields}, follow=True)
        assert answer.status_code == 200
        return [str(message) for message in answer.context["messages"]]

    return do


def logged():
    return [(entry.object_id, entry.get_change_message()) for entry in LogEntry.objects.order_by("object_id")]


@pytest.mark.parametrize(
    ("name", "promise_id", "question"),
    [
        ("cancel", "p", "Below it 2 calls are pending: they go with it."),
        ("resolve", "p.1", "Value, as JSON"),
        ("reject", "p.1", "The message that the waiting function sees."),
    ],
)
def test_an_action_is_asked_about_first_and_does_nothing_yet(admin_client, a_flow, name, promise_id, question):
    page = admin_client.get(f"{DO}/{name}/", {"id": promise_id}).content.decode()
    assert question in page
    assert promises.get(promise_id).state is State.PENDING


def test_cancel_takes_the_tree_and_is_logged_with_its_reason(a_flow, do):
    assert do("cancel", "p") == ["Canceled: p."]
    assert {promises.get(each).state for each in ("p", "p.0", "p.1")} == {State.CANCELED}
    assert logged() == [("p", "Canceled. Reason: because")]


def test_what_somebody_waits_for_is_resolved_with_json(a_flow, do):
    assert do("resolve", "p.1", value='{"approved": true}') == ["Resolved: p.1."]
    assert promises.get("p.1").value == {"approved": True}


def test_what_somebody_waits_for_is_rejected_with_a_text(a_flow, do):
    assert do("reject", "p.1", error="too dear") == ["Rejected: p.1."]
    assert "too dear" in str(promises.get("p.1").error)


@pytest.mark.parametrize("value", ["yes", "{", "NaN", '"\\u0000"', "[" * 70 + "]" * 70, "9" * 5000, "[" * 100_000])
def test_what_is_not_json_is_refused_with_the_reason(admin_client, a_flow, value):
    page = admin_client.post(f"{DO}/resolve/", {"id": "p.1", "reason": "r", "value": value}).content.decode()
    assert "This is not JSON" in page or "This cannot be stored" in page
    assert promises.get("p.1").state is State.PENDING


def test_nothing_is_done_without_a_reason(admin_client, a_flow):
    page = admin_client.post(f"{DO}/cancel/", {"id": "p", "reason": " "}).content.decode()
    assert "This field is required" in page
    assert promises.get("p").state is State.PENDING


def test_retry_takes_up_what_was_rejected(a_tree, do):
    (told,) = do("retry", "p/a_b:c.0")
    assert "makes no sense here any more: p/a_b:c.0 is rpc, rejected" in told


def test_release_takes_a_claim_back(start, claim, do):
    start("p")
    claim("p")
    assert do("release", "p") == ["Released: p."]
    assert promises.get("p").phase is Phase.READY


def test_a_flow_is_run_again_under_a_new_id_and_from_a_call(a_flow, do):
    assert do("run-again", "p", new_id="q", from_step="1") == ["Run again: p."]
    assert promises.get("q").kind is Kind.ROOT
    assert logged() == [("p", "Run again. New id: q. From step: 1. Reason: because")]


@pytest.mark.parametrize(
    ("new_id", "told"), [("p", "exists already"), ("!", "must start with a letter"), ("", "This field is required")]
)
def test_a_new_id_that_cannot_be_is_refused(admin_client, a_flow, new_id, told):
    given = {"id": "p", "reason": "r", "new_id": new_id}
    assert told in admin_client.post(f"{DO}/run-again/", given, follow=True).content.decode()


def test_a_flow_that_has_ended_is_deleted_and_the_log_keeps_who_did_it(start, claim, do):
    start("p")
    resolve(claim("p"))
    assert do("purge", "p") == ["Deleted: p."]
    with pytest.raises(PromiseNotFound):
        promises.get("p")
    (entry,) = LogEntry.objects.all()
    assert (entry.object_id, entry.is_deletion()) == ("p", True)


def test_a_flow_of_which_something_is_pending_is_not_deleted(a_flow, do):
    sql.rows("UPDATE flows_promise SET state = 'canceled', phase = '', settled_at = now() WHERE id = 'p'")
    assert do("purge", "p") == [f"p: nothing was done. {actions.ACTIONS['purge'].otherwise}"]
    assert logged() == []


def test_what_has_moved_before_the_confirmation_is_left_alone_and_told(a_flow, do):
    promises.settle("p.1", State.RESOLVED, value="1")
    assert do("resolve", "p.1", value="2") == ["Resolve makes no sense here any more: p.1 is external, resolved."]
    assert (promises.get("p.1").value, logged()) == (1, [])


def test_what_moves_during_the_confirmation_is_left_alone_and_told(a_flow, do, monkeypatch):
    resolve = operations.resolve

    def resolve_late(promise_id, value):
        promises.settle(promise_id, State.RESOLVED, value="1")
        return resolve(promise_id, value)

    monkeypatch.setattr(operations, "resolve", resolve_late)
    assert do("resolve", "p.1", value="1") == ["p.1: nothing was done. Meanwhile it is resolved."]
    assert do("resolve", "p.1", value="2")[0].startswith("Resolve makes no sense here any more")
    assert logged() == []


def test_many_are_asked_about_and_done_at_once(admin_client, start, do):
    for promise_id in ("a", "b", "c"):
        start(promise_id)
    asked = {"action": "cancel", "_selected_action": ["a", "b"]}
    page = admin_client.post("/admin/flows/promise/", asked).content.decode()
    assert "Cancel 2 promises?" in page
    assert do("cancel", "a", "b") == ["Canceled: 2 promises."]
    assert [each for each, _ in logged()] == ["a", "b"]
    assert promises.get("c").phase is Phase.READY


def test_of_many_only_those_that_fit_are_asked_about(admin_client, start, claim):
    for promise_id in ("a", "b"):
        start(promise_id)
    resolve(claim("a"))
    asked = {"action": "cancel", "_selected_action": ["a", "b"]}
    page = admin_client.post("/admin/flows/promise/", asked).content.decode()
    assert "1 of those that you chose is left alone" in page
    asked["_selected_action"] = ["a"]
    told = admin_client.post("/admin/flows/promise/", asked, follow=True).context["messages"]
    assert [str(message) for message in told] == ["Cancel makes no sense here any more: a is root, resolved."]


@pytest.mark.parametrize("ids", [[], ["nobody"], ["a\x00b"]])
def test_nothing_is_done_to_what_there_is_not(a_flow, do, ids):
    assert do("cancel", *ids) == ["There is no such promise."]


def test_an_action_that_there_is_not(admin_client, a_flow):
    assert admin_client.get(f"{DO}/explode/", {"id": "p"}).status_code == 404


@pytest.mark.parametrize("name", sorted(actions.ACTIONS))
def test_each_action_needs_its_permission(client, a_flow, name):
    clerk = User.objects.create_user("clerk", is_staff=True)
    client.force_login(clerk)
    own = actions.ACTIONS[name].permission
    all_others = {action.permission for action in actions.ACTIONS.values()} - {own} | {"view_promise"}
    clerk.user_permissions.set(Permission.objects.filter(codename__in=all_others))
    assert client.post(f"{DO}/{name}/", {"id": "p", "reason": "r"}).status_code == 403
    assert f"{DO}/{name}/" not in client.get("/admin/flows/promise/p/change/").content.decode()
    clerk.user_permissions.set(Permission.objects.filter(codename__in={own, "view_promise"}))
    assert client.get(f"{DO}/{name}/", {"id": ["p", "p.1"]}, follow=True).status_code == 200


def test_a_page_offers_what_makes_sense(admin_client, a_flow):
    def offered(promise_id):
        page = admin_client.get(f"/admin/flows/promise/{promise_id}/change/").content.decode()
        return [name for name in actions.ACTIONS if f"{DO}/{name}/" in page]

    assert (offered("p"), offered("p.1")) == (["run-again", "cancel"], ["resolve", "reject", "cancel"])
