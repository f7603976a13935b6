from datetime import timedelta

import pytest

from flows.domain.promise import Kind
from tests.integration.conftest import call, resolve, suspend


@pytest.fixture
def flow(start, claim):
    """A flow p that waits for a call, and an older one that has ended."""
    start("done")
    resolve(claim("done"), '"é"')
    start("p", "argument")
    parent = claim("p")
    suspend(parent, call(parent, 0), call(parent, 1, Kind.TIMER), awaits=("p.0",))


def test_flows_are_listed_the_newest_first_with_tabs_in_a_pipe(flow, run):
    ran = run("list")
    assert [line[:3] for line in ran.lines] == [["suspended", "p", "g.f"], ["resolved", "done", "g.f"]]
    assert ran.code == 0


@pytest.mark.parametrize(
    ("args", "ids"),
    [
        (["p"], ["p"]),
        (["--state", "resolved"], ["done"]),
        (["--state", "pending"], ["p"]),
        (["--state", "canceled"], []),
        (["--kind", "any", "--phase", "ready"], ["p.0"]),
        (["--kind", "timer"], ["p.1"]),
        (["--group", "other"], []),
        (["--function", "f", "--limit", "1"], ["p"]),
    ],
    ids=str,
)
def test_lists_can_be_narrowed(flow, run, args, ids):
    ran = run("list", "--json", *args)
    assert [each["id"] for each in ran.json] == ids
    assert ran.code == (0 if ids else 1)


def test_what_is_past_its_deadline_is_listed_as_timed_out(start, holder, run):
    start("late", timeout=timedelta(microseconds=1))
    assert [each["state"] for each in run("list", "--json", "--state", "timedout").json] == ["timedout"]
    assert run("list", "--state", "pending").code == 1


def test_a_promise_is_shown_with_its_attempts_and_what_it_waits_for(flow, run):
    ran = run("show", "p")
    assert "waits for  p.0 (g.child)" in ran.out
    assert "1  suspended in" in ran.out
    assert run("show", "p", "--json").json["attempts"][0]["outcome"] == "suspended"
    assert run("show", "done", "--json").json["value"] == "é"


def test_what_does_not_exist_is_told_on_standard_error(run):
    for verb in ("show", "tree", "watch"):
        ran = run(verb, "nobody")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err == "error: there is no promise 'nobody'\n"


@pytest.mark.parametrize("args", [[], ["nonsense"], ["list", "--limit", "0"], ["list", "--state", "done"]], ids=str)
def test_wrong_usage_is_exit_code_2(run, args):
    ran = run(*args)
    assert ran.code == 2
    assert "usage:" in ran.err


def test_colours_are_for_terminals_and_for_those_who_want_them(flow, run, monkeypatch):
    assert "\x1b[" not in run("list").out
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[33m" in run("--force-color", "list").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in run("--force-color", "list").out
