"""What PostgreSQL does when it has counted a quiet table, or has never counted it, and then there is much to do."""

import re

import pytest

from flows.store import claims, joins, promises, sql, sweeps
from flows.store.claims import Holder
from flows.store.outcome_statement import outcome_statement

SETTLED = 3_000
PENDING = 300
pytestmark = pytest.mark.django_db
FILL = """
INSERT INTO flows_promise (id, root_id, parent_id, "position", kind, "group", function, args, digest, state, value,
    phase, note, continuation, fence, failures, losses, sends, deadline_at, settled_at, ready_at)
SELECT %(mark)s::text || n || kind, %(mark)s::text || n, CASE kind WHEN '' THEN NULL ELSE %(mark)s::text || n END, 0,
    CASE kind WHEN '' THEN 'root' ELSE 'rpc' END, 'g', 'f', '[]', 'd', %(state)s::text,
    CASE %(state)s::text WHEN 'resolved' THEN '1'::json END,
    CASE WHEN %(state)s::text <> 'pending' THEN '' WHEN kind = '' THEN 'suspended' ELSE 'ready' END, '',
    CASE kind WHEN '' THEN '' ELSE 'link' END, 1, 0, 0, 0, now() + interval '1 day',
    CASE WHEN %(state)s::text <> 'pending' THEN now() END, CASE WHEN kind <> '' THEN now() END
FROM generate_series(1, %(count)s::int) AS n, (VALUES (''), ('.0')) AS kinds(kind)
"""


def numbered(text, **types):
    """Return the statement as PostgreSQL is given it: with numbers for the names of its parameters."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    for number, name in enumerate(names, start=1):
        text = text.replace(f"%({name})s", f"${number}::{types[name]}" if name in types else f"${number}")
    return text


def generic_plan(text, **types):
    """Return the plan that a connection keeps for the statement, whatever it is asked for."""
    return explained(f"EXPLAIN (GENERIC_PLAN) {numbered(text, **types)}")


def explained(text, **params):
    return "\n".join(row["QUERY PLAN"] for row in sql.rows(text, **params))


def count_then_begin():
    """Have PostgreSQL count the table while it is quiet; then much begins."""
    sql.rows("ANALYZE flows_promise")
    sql.rows(FILL, mark="new", state="pending", count=PENDING)


@pytest.fixture(params=[False, True], ids=["not counted", "counted"])
def full_table(request):
    sql.rows(FILL, mark="old", state="resolved", count=SETTLED)
    if request.param:
        count_then_begin()


def test_a_join_looks_at_the_calls_of_its_parents_only():
    sql.rows(FILL, mark="old", state="resolved", count=SETTLED)
    count_then_begin()
    ids = [f"new{number}" for number in range(PENDING)]
    plan = explained(f"EXPLAIN {joins.JOIN}", ids=ids)
    assert "flows_promise_due" not in plan
    assert "flows_promise_awaited" in plan or "flows_promise_children" in plan


def test_a_look_ahead_for_one_group_does_not_read_what_is_ready_in_others():
    sql.rows(FILL, mark="new", state="pending", count=SETTLED)
    sql.rows("ANALYZE flows_promise")
    plan = generic_plan(sweeps.DUE, groups="text[]", every="interval", deadlines="bool")
    assert "Seq Scan on flows_promise" not in plan
    # One for the list of groups.
    assert plan.count("Limit ") == 1 + len(re.findall(r"Scan using \w+ on flows_promise", plan))


@pytest.mark.parametrize(
    "text", [sweeps.TAKE_UNSENT, sweeps.EXPIRE_DUE, sweeps.UNSERVED], ids=["take", "expire", "note"]
)
def test_what_a_sweep_takes_is_looked_for_once(text):
    """In a sub-select it may be looked for again for each row that it is joined to, and each time as many are taken."""
    plan = generic_plan(text, every="interval", lease="interval")
    assert re.search(r"CTE \w+\n\s+->  Limit .*\n\s+->  LockRows", plan)
    assert plan.count("LockRows") == 1


HOLDER = Holder(node_id=1, session=1)
PLANS = "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement = %(text)s"


@pytest.mark.parametrize(
    ("text", "ask"),
    [
        (promises.READ, lambda: promises.get_many(["nobody"])),
        (claims.CLAIM_READY, lambda: claims.claim_ready("nowhere", ["f"], 1, HOLDER)),
        (joins.JOIN, lambda: joins.join(["nobody"])),
        (sweeps.DUE, lambda: sweeps.due(["nowhere"], deadlines=True)),
    ],
    ids=["read", "claim ready", "join", "due"],
)
def test_what_is_asked_again_and_again_is_planned_a_few_times_only(text, ask):
    for _ in range(20):
        ask()
    [plans] = sql.rows(PLANS, text=numbered(text))
    assert plans["generic_plans"] > plans["custom_plans"]


def statement(**parts):
    return outcome_statement(**{"gives_up": False, "again": False, "has_steps": False, "has_marks": False, **parts})


@pytest.mark.parametrize(
    "text",
    [
        promises.READ,
        claims.CLAIM_NAMED,
        claims.CLAIM_READY,
        joins.JOIN,
        statement(has_calls=True, has_ends=False),
        statement(has_calls=False, has_ends=True),
        statement(has_calls=True, has_ends=True),
        statement(has_calls=True, has_ends=True, gives_up=True),
    ],
    ids=[
        "read",
        "claim named",
        "claim ready",
        "join",
        "commit of calls",
        "commit of ends",
        "commit of both",
        "commit of several threads",
    ],
)
def test_a_plan_that_a_connection_made_for_an_empty_table_is_good_for_a_full_one(text):
    """Such a plan stays until the table is analyzed: it must not read the table, nor all that is pending."""
    plan = generic_plan(text, ids="text[]")
    assert "Index" in plan
    assert "Seq Scan on flows_promise" not in plan
    assert not re.search("flows_promise_(due|created|called|roots)", plan)
    assert plan.count("flows_promise_runnable") == (text in (claims.CLAIM_NAMED, claims.CLAIM_READY))


@pytest.mark.parametrize(
    "text",
    [sweeps.RECOVER, sweeps.UNSERVED, sweeps.TAKE_UNSENT, sweeps.DUE, joins.JOIN_MISSED],
    ids=["recover", "note", "take", "due", "join"],
)
@pytest.mark.usefixtures("full_table")
def test_a_sweep_reads_nothing_that_has_settled(text):
    plan = generic_plan(text, every="interval", lease="interval", locks="bool", deadlines="bool")
    assert "Seq Scan on flows_promise" not in plan
    assert ("flows_promise_waiting" if text is joins.JOIN_MISSED else "flows_promise_runnable") in plan
    assert not re.search("flows_promise_(created|called|roots)", plan)


@pytest.mark.parametrize("parts", [{"has_marks": True}, {"has_steps": True}], ids=["marks", "steps"])
@pytest.mark.usefixtures("full_table")
def test_a_commit_looks_at_its_own_calls_only(parts):
    plan = generic_plan(statement(**{"has_calls": "has_steps" in parts, "has_ends": False, **parts}))
    scans = re.findall(r"(?:Scan using|Scan on) (flows_promise\w+)", plan)
    assert scans
    assert set(scans) == {"flows_promise_pkey"}
