import json

import pytest
from django.db import connection

from flows.cli import trees
from flows.domain.promise import Kind
from flows.store import cancel, sql
from tests.integration.conftest import call, resolve, suspend


@pytest.fixture
def tree(start, claim):
    """A flow p that waits for the first of its calls; twelve others are alike."""
    start()
    parent = claim()
    calls = [call(parent, position, function="other") for position in range(1, 13)]
    suspend(parent, call(parent, 0), *calls, call(parent, 13, Kind.DETACHED), awaits=("p.0",))


def test_a_tree_is_shown_by_its_calls_with_wide_siblings_folded(tree, run):
    ran = run("tree", "p")
    assert ran.code == 0
    top, *below = ran.out.splitlines()
    assert top.startswith("… g.f  p  suspended")
    assert [line[4:].split("  ")[0] for line in below] == ["… g.child", "12 times g.other", "… detached g.child"]


def test_a_tree_as_json_has_every_promise(tree, run):
    found = run("tree", "p", "--json").json
    assert len(found["promises"]) == 15
    assert found["promises"][0]["attempts"][0]["outcome"] == "suspended"


def settle_meanwhile(monkeypatch, *changes):
    """Make one change of the table at each pause of those who watch."""
    todo = list(changes)
    monkeypatch.setattr(trees, "sleep", lambda _: todo.pop(0)())


def test_who_watches_sees_each_change_once_and_the_outcome_in_the_exit_code(start, claim, run, monkeypatch):
    start()
    held = claim()
    settle_meanwhile(monkeypatch, lambda: None, lambda: resolve(held))
    ran = run("watch", "p", "--json")
    seen = [json.loads(line) for line in ran.out.splitlines()]
    assert [(each["state"], each["phase"]) for each in seen] == [("pending", "claimed"), ("resolved", "")]
    assert ran.code == 0


def test_a_flow_that_does_not_resolve_is_exit_code_1(start, run, monkeypatch):
    start()
    settle_meanwhile(monkeypatch, lambda: cancel.cancel_tree("p"))
    ran = run("watch", "p")
    assert ran.code == 1
    assert [line.split("  ")[3] for line in ran.out.splitlines()] == ["ready", "canceled"]


def test_a_terminal_shows_the_tree_as_it_ends(start, claim, run, monkeypatch):
    start()
    held = claim()
    monkeypatch.setenv("TERM", "xterm")
    settle_meanwhile(monkeypatch, lambda: resolve(held))
    ran = run("--force-color", "watch", "p")
    assert ran.code == 0
    assert "resolved" in ran.out


def test_watching_ends_in_time(start, run):
    start()
    assert run("watch", "p", "--timeout", "0s").code == 1


def test_a_database_that_is_away_is_told_without_a_traceback(start, run, monkeypatch):
    start()
    sql.connection().close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "PORT", "1")
        ran = run("tree", "p")
    assert ran.code == 1
    assert ran.err.startswith("error: PostgreSQL cannot be asked: connection failed")
