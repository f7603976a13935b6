"""What a worker has read and what cannot change is not read again."""

import json
import time
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

import flows
from flows.domain.promise import Kind, State
from flows.engine.decision import Checkpoint
from flows.store import claims, memory, sql
from flows.store.claims import ReadyRef
from flows.store.memory import Memory
from tests.integration.conftest import call, resolve, suspend
from tests.waiting import wait_until


def resume(holder, known, promise_id="p"):
    """A claim, and the calls of its promise as it has them."""
    taken, _ = claims.claim_named(ReadyRef(id=promise_id, group="g", function="f"), holder, known)
    assert taken is not None
    return taken, taken.invocation.checkpoints


def read_by(monkeypatch, act):
    """What ``act`` returns, and the positions of the records that it reads."""
    read: list[int] = []
    make = claims._checkpoints

    def spy(columns):
        made = make(columns)
        read.extend(each.position for each in made)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(claims, "_checkpoints", spy)
        return act(), read


def test_what_has_resolved_is_read_once(start, claim, holder, monkeypatch):
    start()
    known = Memory(worth=1)
    parent, _ = resume(holder, known)
    for position in range(4):
        suspend(parent, call(parent, position))
        resolve(claim(f"p.{position}", function="child"), value=f'["{position}"]')
        (parent, checkpoints), read = read_by(monkeypatch, lambda: resume(holder, known))
        assert read == [position]
        assert [each.value for each in checkpoints] == [f'["{each}"]' for each in range(position + 1)]


def test_what_may_change_is_read_again(start, claim, holder, monkeypatch):
    start()
    known = Memory(worth=1)
    parent, _ = resume(holder, known)
    suspend(parent, *(call(parent, position) for position in range(3)), awaits=("p.1",))
    resolve(claim("p.1", function="child"))
    parent, checkpoints = resume(holder, known)
    assert [each.state for each in checkpoints] == [State.PENDING, State.RESOLVED, State.PENDING]
    suspend(parent, awaits=("p.0",))
    resolve(claim("p.0", function="child"))
    _, read = read_by(monkeypatch, lambda: resume(holder, known))
    assert read == [0, 1, 2]


def test_a_detached_call_is_known_though_it_goes_on(start, holder, monkeypatch):
    start()
    known = Memory(worth=1)
    parent, _ = resume(holder, known)
    suspend(parent, call(parent, 0, Kind.DETACHED), call(parent, 1, Kind.EXTERNAL), awaits=("p.1",))
    flows.resolve("p.1")
    parent, _ = resume(holder, known)
    suspend(parent, call(parent, 2, Kind.EXTERNAL))
    flows.resolve("p.2")
    _, read = read_by(monkeypatch, lambda: resume(holder, known))
    assert read == [2]


def test_an_id_that_is_used_again_has_nothing_of_the_flow_before(start, claim, holder):
    known = Memory(worth=1)
    for value in ("1", "2"):
        start()
        parent, _ = resume(holder, known)
        suspend(parent, call(parent, 0))
        resolve(claim("p.0", function="child"), value=value)
        parent, checkpoints = resume(holder, known)
        assert [each.value for each in checkpoints] == [value]
        resolve(parent)
        assert flows.purge_tree("p") == 2


def test_few_records_are_not_kept(start, claim, holder):
    known = Memory()
    resolve_calls(start, claim, holder, known, count=memory.WORTH - 1)
    assert known_ids(known) == []


def test_what_is_too_much_to_keep_is_forgotten(start, claim, holder):
    known = Memory(worth=1, most_bytes=2 * memory.RECORD_BYTES)
    resolve_calls(start, claim, holder, known, count=1)
    assert known_ids(known) == ["p"]
    resolve_calls(start, claim, holder, known, count=1, promise_id="q")
    assert known_ids(known) == ["q"]


def test_nothing_is_forgotten_between_a_claim_and_its_answer():
    known = Memory(worth=1, most_bytes=memory.RECORD_BYTES)
    created_at = 1_767_225_600.0
    (first,) = known.complete("p", created_at, [record("p.0")])
    assert known_ids(known) == ["p"]
    known.complete("q", created_at, [record("q.0")])
    assert known.complete("p", created_at, []) == (first,)
    known.complete("q", created_at, [])
    assert known_ids(known) == ["q"]


def test_a_claim_reads_nothing_again_of_what_was_claimed_while_a_transaction_stays_open(start, holder, monkeypatch):
    monkeypatch.setattr(memory, "LOOK_BACK_EVERY_S", 3600)
    monkeypatch.setattr(memory, "LATE_S", 0)
    remembered = Memory()
    with open_snapshot():
        for index in range(200):
            start(f"p{index}")
            claims.claim_ready("g", ["f"], 1, holder, remembered)
        start("last")
        assert index_entries_read(lambda: claims.claim_ready("g", ["f"], 1, holder, remembered)) < 10
        assert index_entries_read(lambda: claims.claim_ready("g", ["f"], 1, holder, remembered)) < 10
        assert index_entries_read(lambda: claims.claim_ready("g", ["f"], 1, holder)) > 200


def test_a_look_that_finds_nothing_counts_too(start, claim, holder, monkeypatch):
    monkeypatch.setattr(memory, "LOOK_BACK_EVERY_S", 3600)
    remembered = Memory()
    start("p")
    taken, _ = resume(holder, remembered)
    assert remembered.since("g") == 0
    assert claimed_ids(holder, remembered) == []
    assert remembered.since("g") == pytest.approx(taken.clock.timestamp() - memory.LATE_S)


def test_a_start_that_was_committed_late_is_found_by_a_look_back(start, holder):
    remembered = Memory()
    start("first")
    assert claimed_ids(holder, remembered) == ["first"]
    start("late")
    sql.rows("UPDATE flows_promise SET ready_at = ready_at - interval '1 hour' WHERE id = 'late'")
    start("in time")
    assert claimed_ids(holder, remembered) == ["in time"]
    wait_until(lambda: claimed_ids(holder, remembered) == ["late"], within_s=10 * memory.LOOK_BACK_EVERY_S)


def test_a_look_back_that_takes_long_is_made_less_often(monkeypatch):
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    remembered = Memory()
    remembered.looked("g", since=0, took_s=0.5, ready_at=5000.0)
    now_s += 9.9
    assert remembered.since("g") == 5000 - memory.LATE_S
    remembered.looked("g", since=4999, took_s=0.001, ready_at=5001.0)
    now_s += 0.2
    assert remembered.since("g") == 0


def test_once_the_clock_is_put_back_claims_go_on_from_there(start, holder):
    remembered = Memory()
    remembered.looked("g", since=0, took_s=0, ready_at=time.time() + 3600)
    start("p")
    wait_until(lambda: claimed_ids(holder, remembered) == ["p"], within_s=10 * memory.LOOK_BACK_EVERY_S)
    assert 0 < remembered.since("g") < time.time()


def test_groups_are_remembered_apart(start, holder):
    remembered = Memory()
    start("p")
    assert claimed_ids(holder, remembered) == ["p"]
    assert remembered.since("g") > 0
    assert remembered.since("h") == 0


def test_who_takes_one_message_a_promise_looks_for_no_other(start, holder):
    start("p")
    start("q")
    taken, following = claims.claim_named(ReadyRef(id="p", group="g", function="f"), holder, names_next=False)
    assert taken is not None
    assert following is None


@contextmanager
def open_snapshot():
    """A transaction elsewhere that may still see all rows as they are now: a backup, a report."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM flows_promise")
            yield
    finally:
        other.close()


def index_entries_read(act):
    """How many entries of the index of ready promises ``act`` reads, those of dead rows, too."""
    counted = "SELECT pg_stat_get_xact_tuples_returned('flows_promise_runnable'::regclass) AS count"
    with transaction.atomic():
        before = sql.rows(counted)[0]["count"]
        act()
        return sql.rows(counted)[0]["count"] - before


def claimed_ids(holder, remembered):
    taken, _ = claims.claim_ready("g", ["f"], 10, holder, remembered)
    return [each.invocation.id for each in taken]


def known_ids(known):
    return [each["id"] for each in json.loads(known.params()["known"])]


def record(promise_id):
    return Checkpoint(
        id=promise_id,
        position=0,
        kind=Kind.RPC,
        group="g",
        function="child",
        digest="",
        state=State.RESOLVED,
        value=None,
        error=None,
        failures=0,
        is_awaited=True,
        settled_at=1.0,
    )


def resolve_calls(start, claim, holder, known, *, count, promise_id="p"):
    """Start a promise, resolve so many calls of it at once, and claim it again."""
    start(promise_id)
    parent, _ = resume(holder, known, promise_id)
    suspend(parent, *(call(parent, position) for position in range(count)))
    for position in range(count):
        resolve(claim(f"{promise_id}.{position}", function="child"))
    resume(holder, known, promise_id)
