from datetime import timedelta

import pytest

from flows.domain.promise import Kind, State
from flows.engine.decision import Failed, SetAside
from flows.store import cancel, outcomes, overview, sql
from flows.store.outcomes import Outcome
from flows.store.overview import GroupLoad, read_overview
from tests.integration.conftest import call, expire_lease, resolve, suspend

MANY_SETTLED = """
INSERT INTO flows_promise (id, root_id, "position", kind, "group", function, args, digest, state, value, phase, note,
    continuation, fence, failures, losses, sends, created_at, deadline_at, settled_at)
SELECT 'old-' || n, 'old-' || n, 0, 'root', 'g', 'f', '[]', '', 'resolved', '1', '', '', '', 1, 0, 0, 0,
    now() - interval '2 days', now() - interval '1 day', now() - interval '1 day' FROM generate_series(1, 20000) AS n
"""
MANY_ATTEMPTS = """
INSERT INTO flows_attempt (promise_id, fence, outcome, started_at)
SELECT 'old-' || n, 1, 'resolved', now() FROM generate_series(1, 20000) AS n
"""


def load(group="g") -> GroupLoad:
    return next(each for each in read_overview().groups if each.group == group)


def end(claim, decision):
    outcomes.commit([Outcome(claim=claim, decision=decision)])


def test_pending_promises_are_counted_by_what_they_wait_for(start, claim):
    for promise_id in ("ready", "claimed", "suspended", "aside", "delayed"):
        start(promise_id)
    claim("claimed")
    parent = claim("suspended")
    suspend(parent, call(parent, 0, Kind.EXTERNAL), call(parent, 1, Kind.TIMER), awaits=("suspended.0",))
    end(claim("aside"), SetAside(note="changed"))
    error = ValueError()
    failed = {"type": "ValueError", "message": "", "traceback": "", "cause": None}
    end(claim("delayed"), Failed(error=failed, exception=error, delay=timedelta(hours=1), failures=1))
    found = load()
    assert (found.ready, found.delayed, found.claimed, found.suspended, found.aside) == (1, 1, 1, 1, 1)
    assert (found.external, found.timers, found.oldest_id, found.nodes) == (1, 1, "ready", 1)


def test_the_oldest_ready_promise_is_named(start, holder):
    start("younger")
    start("older")
    sql.rows("UPDATE flows_promise SET ready_at = ready_at - interval '1 minute' WHERE id = 'older'")
    assert load().oldest_id == "older"


def test_a_group_with_work_and_no_node_is_unserved(start, holder):
    start()
    assert not load().is_unserved
    expire_lease(holder)
    assert load().is_unserved
    assert read_overview().nodes == 0


def test_groups_of_the_settings_are_there_without_work_and_nodes(transactional_db):
    assert load("service-a") == GroupLoad(group="service-a", nodes=0)
    assert not load("service-a").is_unserved


def test_what_settled_lately_is_counted_by_state(start, claim):
    for promise_id in ("long-ago", "now", "canceled"):
        start(promise_id)
    resolve(claim("long-ago"))
    resolve(claim("now"))
    cancel.cancel_tree("canceled")
    sql.rows("UPDATE flows_promise SET settled_at = now() - interval '2 hours' WHERE id = 'long-ago'")
    found = read_overview()
    assert found.settled == {State.RESOLVED: 1, State.REJECTED: 0, State.CANCELED: 1, State.TIMEDOUT: 0}
    assert found.failed == 1


def test_lost_and_fenced_attempts_are_counted(start, claim):
    start()
    overtaken = claim()
    cancel.cancel_tree("p")
    assert resolve(overtaken) is None
    found = read_overview()
    assert (found.lost, found.fenced) == (0, 1)


def test_a_promise_past_its_deadline_is_not_pending_any_more(start, holder):
    start(timeout=timedelta(microseconds=1))
    assert read_overview().total("ready") == 0


@pytest.mark.parametrize(
    ("statement", "params"),
    [
        (overview.GROUPS, {}),
        (overview.SETTLED, {"states": ["resolved"], "window": overview.WINDOW, "limit": 100}),
        (overview.ENDED, {"outcomes": ["lost"], "window": overview.WINDOW, "limit": 100}),
    ],
)
def test_no_statement_reads_what_is_only_kept(start, holder, statement, params):
    sql.rows(MANY_SETTLED)
    sql.rows(MANY_ATTEMPTS)
    start()
    sql.rows("ANALYZE flows_promise, flows_attempt")
    plan = "\n".join(row["QUERY PLAN"] for row in sql.rows("EXPLAIN " + statement, **params))
    assert "Seq Scan on flows_promise" not in plan
    assert "Seq Scan on flows_attempt" not in plan
