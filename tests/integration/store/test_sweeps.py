from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

from django.db import connection

from flows.conf import Settings
from flows.domain.promise import Kind, Phase, State
from flows.engine.decision import Failed
from flows.store import nodes, outcomes, promises, sql, sweeps
from flows.store.outcomes import Outcome
from tests.integration.conftest import call, expire_lease, leaving, suspend


def test_claims_of_a_living_process_are_left_alone(start, claim):
    start()
    claim()
    assert sweeps.recover().ready == []


def test_claims_are_lost_with_the_session_of_their_process(start, claim, holder):
    start()
    claim()
    sql.rows("SELECT pg_advisory_unlock_shared(%(space)s, 1)", space=nodes.LOCK_SPACE + holder.node_id)
    assert [each.id for each in sweeps.recover().ready] == ["p"]
    assert [each["outcome"] for each in promises.attempts("p")] == ["lost"]


def test_claims_are_lost_with_the_lease_of_their_node(start, claim, holder):
    start()
    claim()
    expire_lease(holder)
    assert [each.id for each in sweeps.recover().ready] == ["p"]
    assert promises.get("p").phase is Phase.READY


def test_a_claim_has_a_lease_of_its_own_while_its_node_has_not_beaten(start, claim, holder):
    start()
    expire_lease(holder)
    claim()
    assert sweeps.recover().ready == []


def test_what_a_stopping_node_hands_back_is_no_loss(start, claim, holder):
    start()
    parent = claim()
    assert [each.id for each in sweeps.hand_back(holder.node_id)] == ["p"]
    assert [each["outcome"] for each in promises.attempts("p")] == ["lost"]
    assert sql.rows("SELECT losses, phase FROM flows_promise") == [{"losses": 0, "phase": "ready"}]
    assert suspend(parent, call(parent, 0)) is None
    assert sweeps.hand_back(holder.node_id) == []


def test_a_promise_that_keeps_killing_its_workers_is_rejected(start, claim, holder):
    start()
    for _ in range(Settings().MAX_LOSSES):
        assert promises.get("p").state is State.PENDING
        claim()
        expire_lease(holder)
        sweeps.recover()
    promise = promises.get("p")
    assert promise.state is State.REJECTED
    assert (promise.error or {})["message"] == "5 attempts in a row ended without an outcome"


def test_due_timers_resolve_and_due_deadlines_time_out(start, claim):
    start()
    parent = claim()
    suspend(parent, call(parent, 0, Kind.TIMER, timeout=timedelta(0)), call(parent, 1, timeout=timedelta(0)))
    assert sweeps.expire_due() == ["p", "p"]
    assert promises.get("p.0").state is State.RESOLVED
    assert promises.get("p.1").state is State.TIMEDOUT
    assert promises.get("p").state is State.PENDING


def test_a_promise_whose_message_is_overdue_is_sent_again_ever_more_rarely(start):
    start()
    assert sweeps.take_unsent(["g"], []) == []
    for wait_s in (1, 2, 4):
        sql.rows("UPDATE flows_promise SET sent_at = now() - %(wait)s", wait=timedelta(seconds=wait_s + 0.1))
        assert sweeps.take_unsent(["other"], []) == []
        assert [each.id for each in sweeps.take_unsent(["g"], [])] == ["p"]
        assert sweeps.take_unsent(["g"], []) == []


def test_a_message_that_could_not_be_sent_is_due_at_the_next_sweep(start):
    start()
    sql.rows("UPDATE flows_promise SET sent_at = now() - interval '1 minute', sends = 3")
    taken = sweeps.take_unsent(["g"], [])
    assert [each.id for each in taken] == ["p"]
    sweeps.not_sent(each.id for each in taken)
    assert sql.rows("SELECT sends FROM flows_promise") == [{"sends": 3}]
    assert sweeps.take_unsent(["g"], []) == taken


def test_of_sweeps_that_look_at_once_each_takes_others(start):
    for number in range(40):
        start(f"p{number}")
    sql.rows("UPDATE flows_promise SET sent_at = NULL")

    with ThreadPoolExecutor(4) as pool:
        takes = [pool.submit(leaving, sweeps.take_unsent, ["g"], []) for _ in range(4)]
        taken = [each.id for take in takes for each in take.result()]
    assert taken
    assert len(taken) == len(set(taken))


def test_to_take_back_what_was_not_sent_waits_for_nobody_who_has_something_open(start):
    start()
    sql.rows("UPDATE flows_promise SET sent_at = NULL")
    taken = sweeps.take_unsent(["g"], [])
    with closing(connection.copy()) as other:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT FROM flows_promise FOR UPDATE")
        sweeps.not_sent(each.id for each in taken)
        assert sweeps.take_unsent(["g"], []) == []
        other.rollback()
    sweeps.not_sent(each.id for each in taken)
    assert sweeps.take_unsent(["g"], []) == taken


def test_nothing_is_sent_for_a_task_that_is_attended_but_to_a_node_of_its_own(start):
    start()
    sql.rows("UPDATE flows_promise SET sent_at = now() - interval '1 minute'")
    assert sweeps.take_unsent(["g"], ["1"], attended=["g.f"]) == []
    assert [each.id for each in sweeps.take_unsent(["g"], ["1"], attended=["g.other"])] == ["p"]
    sql.rows("UPDATE flows_promise SET addressee = '1', sent_at = now() - interval '1 minute'")
    assert [each.id for each in sweeps.take_unsent(["g"], ["1"], attended=["g.f"])] == ["p"]


def test_only_one_of_two_nodes_takes_the_turn(holder):
    other = nodes.register(nodes.NodeInfo(name="other", groups=("g",), hostname="test", pid=2))
    assert nodes.take_sweep_turn(holder.node_id)
    assert not nodes.take_sweep_turn(other)


def test_a_node_that_recovers_nothing_yet_leaves_the_turn_to_one_that_does(holder):
    young = nodes.register(nodes.NodeInfo(name="young", groups=("g",), hostname="test", pid=2))
    assert nodes.take_sweep_turn(young, recovers=False)
    assert nodes.take_sweep_turn(holder.node_id)
    assert not nodes.take_sweep_turn(young, recovers=False)


def test_a_node_whose_row_was_deleted_comes_back_under_its_id(holder):
    sql.rows("DELETE FROM flows_node")
    nodes.beat(holder.node_id, nodes.NodeInfo(name="node@test", groups=("g",), hostname="test", pid=1))
    assert sql.rows("SELECT id FROM flows_node") == [{"id": holder.node_id}]


def test_what_waits_for_a_group_that_nobody_serves_says_so(start, holder):
    start()
    sql.rows("UPDATE flows_promise SET ready_at = now() - interval '1 minute'")
    assert sweeps.note_unserved() == set()
    expire_lease(holder)
    assert sweeps.note_unserved() == {"g"}
    assert promises.get("p").note == "no live node serves group g; start a worker for its queue"
    assert sweeps.note_unserved() == set()


def test_what_is_due_next_is_told_in_seconds(start, claim):
    assert sweeps.due(["g"], deadlines=True) == (False, None)
    start(timeout=timedelta(seconds=90))
    assert sweeps.due(["g"], deadlines=True)[0] is True
    parent = claim()
    suspend(parent, call(parent, 0, Kind.TIMER, timeout=timedelta(seconds=30)))
    is_due, seconds = sweeps.due(["g"], deadlines=True)
    assert is_due is False
    assert 25 < (seconds or 0) < 30
    assert sweeps.due(["g"], deadlines=False) == (False, None)
    sql.rows("UPDATE flows_promise SET deadline_at = now() WHERE id = 'p.0'")
    assert sweeps.due(["g"], deadlines=False)[0] is True


def test_the_time_at_which_a_message_will_be_overdue_is_told_too(start):
    start()
    sql.rows("UPDATE flows_promise SET sent_at = now() - interval '0.4 seconds'")
    assert 0.3 < (sweeps.due(["other", "g"], deadlines=False)[1] or 0) <= 0.6
    assert sweeps.due(["other"], deadlines=False)[1] is None
    sql.rows("UPDATE flows_promise SET sent_at = now() - interval '1 second'")
    assert sweeps.due(["g"], deadlines=False) == (True, None)


def test_where_messages_are_overdue_one_after_the_other_they_wait_for_each_other(start):
    start()
    sql.rows("UPDATE flows_promise SET sent_at = now() - interval '0.9 seconds'")
    assert 0.15 < (sweeps.due(["g"], deadlines=False)[1] or 0) <= 0.2


def test_the_next_retry_of_ones_own_groups_is_due_too(start, claim):
    start()
    failed = Failed(
        error={"type": "E", "message": "no"}, exception=ValueError(), delay=timedelta(seconds=30), failures=1
    )
    outcomes.commit([Outcome(claim=claim(), decision=failed)])
    assert 25 < (sweeps.due(["other", "g"], deadlines=False)[1] or 0) < 30
    assert sweeps.due(["other"], deadlines=False) == (False, None)
