from datetime import timedelta

import pytest

from flows.admin import lists
from flows.admin.promises import PromiseAdmin
from flows.domain.promise import Kind, State
from flows.engine.decision import Failed
from flows.models import Promise
from flows.store import outcomes, sql
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, suspend

LIST = "/admin/flows/promise/"
ERROR = {"type": "OSError", "message": "two\nlines", "traceback": "t", "cause": None}


def listed(admin_client, **query):
    return [promise.id for promise in admin_client.get(LIST, query).context["cl"].result_list]


@pytest.fixture
def fail(claim):
    """Let an attempt fail; the next one is due in an hour."""

    def fail(promise_id, failures=1):
        decision = Failed(error=ERROR, delay=timedelta(hours=1), failures=failures, exception=OSError())
        outcomes.commit([Outcome(claim=claim(promise_id), decision=decision)])

    return fail


@pytest.mark.parametrize("model", ["promise", "attempt", "node"])
def test_lists_are_read_only_and_searchable_by_prefix(admin_client, a_tree, model, django_assert_max_num_queries):
    with django_assert_max_num_queries(10):
        page = admin_client.get(f"/admin/flows/{model}/", {"q": "p"})
    assert page.status_code == 200
    assert "Add" not in page.content.decode().partition("<main")[2].partition("</main")[0]
    assert admin_client.get(f"/admin/flows/{model}/add/").status_code == 403


def test_search_is_by_the_beginning_of_the_id(admin_client, a_tree):
    assert listed(admin_client, q="p/a_b:c.0") == ["p/a_b:c.0"]
    assert listed(admin_client, q=".0") == []


def test_an_exact_match_comes_first(admin_client, start):
    for promise_id in ("p.b", "p", "p.a"):
        start(promise_id)
    assert listed(admin_client, q="p") == ["p", "p.a", "p.b"]
    assert listed(admin_client) == ["p.a", "p", "p.b"]


def test_roots_alone_are_listed_until_somebody_asks_for_more(admin_client, a_tree):
    assert listed(admin_client) == ["p/a_b:c"]
    assert sorted(listed(admin_client, role="all")) == ["p/a_b:c", "p/a_b:c.0"]
    assert listed(admin_client, role="rpc") == ["p/a_b:c.0"]
    assert listed(admin_client, parent="p/a_b:c") == ["p/a_b:c.0"]


def test_the_role_in_effect_is_shown(admin_client, a_tree):
    def selected(**query):
        (spec,) = (spec for spec in admin_client.get(LIST, query).context["cl"].filter_specs if spec.title == "role")
        return [
            choice["display"] for choice in spec.choices(admin_client.get(LIST).context["cl"]) if choice["selected"]
        ]

    assert (selected(), selected(q="p"), selected(role="rpc")) == (["Roots only"], ["All"], ["rpc"])


@pytest.mark.parametrize(("state", "expected"), [("timedout", ["late"]), ("pending", ["p"]), ("resolved", [])])
def test_a_promise_past_its_deadline_has_timed_out_before_anybody_wrote_it(admin_client, start, state, expected):
    start()
    start("late")
    sql.rows("UPDATE flows_promise SET deadline_at = now() - interval '1 hour' WHERE id = 'late'")
    assert listed(admin_client, state=state) == expected
    assert Promise.objects.get(pk="late").state == State.PENDING


@pytest.mark.parametrize(
    ("needs", "expected"),
    [("attention", ["often", "p"]), ("noted", ["often", "p"]), ("failing", ["often"]), ("aside", [])],
)
def test_what_needs_attention_is_found(admin_client, start, fail, needs, expected):
    for promise_id, failures in (("p", 1), ("often", 3)):
        start(promise_id)
        fail(promise_id, failures)
    start("fine")
    assert listed(admin_client, needs=needs) == expected


def test_what_waits_for_somebody_is_found_below_its_flow(admin_client, start, claim):
    start()
    parent = claim()
    suspend(parent, call(parent, 0, Kind.EXTERNAL, function="approval"))
    assert listed(admin_client, needs="somebody") == ["p.0"]


def test_groups_and_functions_to_filter_by_are_those_that_are_known(admin_client, start):
    start()
    page = admin_client.get(LIST, {"group": "service-a"})
    assert "group=service-i" in page.content.decode()
    assert "call=service-i.dop" in page.content.decode()
    assert not page.context["cl"].result_list


def test_a_function_is_found_by_its_name_and_group(admin_client, start):
    start()
    assert (listed(admin_client, call="g.f"), listed(admin_client, call="g.other")) == (["p"], [])


@pytest.mark.parametrize(("created", "expected"), [("hour", ["p"]), ("day", ["p", "old"]), ("", ["p", "old"])])
def test_promises_are_found_by_their_age(admin_client, start, created, expected):
    for promise_id in ("old", "p"):
        start(promise_id)
    sql.rows("UPDATE flows_promise SET created_at = created_at - interval '2 hours' WHERE id = 'old'")
    assert listed(admin_client, created=created) == expected


def test_a_row_tells_calls_attempts_and_the_last_error(admin_client, start, fail, claim, content):
    start()
    parent = claim()
    suspend(parent, call(parent, 0), call(parent, 1))
    start("q")
    fail("q")
    page = content(LIST)
    assert "0 / 2" in page
    assert "1, 1 failed" in page
    assert "OSError: two lines" in page


def test_a_claimed_promise_tells_who_holds_it(start, claim, content):
    start()
    claim()
    assert "node@test" in content(LIST)
    sql.rows("DELETE FROM flows_node")
    assert "a node that is gone" in content(LIST)


def test_the_longest_id_is_shortened_in_lists(start, content):
    start("x" * 1000)
    assert f">{'x' * 30}…{'x' * 30}</span>" in content(LIST)


def test_rows_are_counted_up_to_a_bound_and_older_ones_are_a_click_away(admin_client, start, monkeypatch):
    for number in range(3):
        start(f"p{number}")
    monkeypatch.setattr(lists, "MAX_COUNTED", 2)
    monkeypatch.setattr(PromiseAdmin, "list_per_page", 1)
    last_page = admin_client.get(LIST, {"p": 2}).context["cl"]
    assert (last_page.result_count, [promise.id for promise in last_page.result_list]) == (2, ["p1"])
    older = admin_client.get(LIST + last_page.older_query).context["cl"]
    assert ([promise.id for promise in older.result_list], older.older_query) == (["p0"], "")
