from concurrent.futures import ThreadPoolExecutor

from django.db import connection, transaction

from flows.domain.promise import Kind, Phase
from flows.store import claims, promises, sql, sweeps
from flows.store.claims import Holder, ReadyRef
from tests.integration.conftest import call, expire_lease, resolve, suspend

NAMED = ReadyRef(id="p", group="g", function="f")


def test_a_promise_is_claimed_once(start, claim, holder):
    start()
    taken = claim()
    assert (taken.fence, taken.invocation.args, taken.invocation.checkpoints) == (1, [], ())
    assert claims.claim_named(NAMED, holder) == (None, None)


def test_many_claimants_share_the_ready_promises_without_overlap(start, holder):
    for index in range(40):
        start(f"p{index}")

    def take(_):
        try:
            taken, _ = claims.claim_ready("g", ["f"], 7, holder)
            return [each.invocation.id for each in taken]
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        taken = [promise_id for batch in pool.map(take, range(8)) for promise_id in batch]
    assert len(taken) == len(set(taken))
    rest, following = claims.claim_ready("g", ["f"], 100, holder)
    assert len(taken) + len(rest) == 40
    assert following is None


def test_claiming_some_names_the_next_one(start, holder):
    for index in range(3):
        start(f"p{index}")
    taken, following = claims.claim_ready("g", ["f"], 2, holder)
    assert [each.invocation.id for each in taken] == ["p0", "p1"]
    assert following == ReadyRef(id="p2", group="g", function="f")


def test_claiming_by_name_tells_whether_another_one_is_ready(start, holder):
    start("p")
    start("q")
    _, following = claims.claim_named(NAMED, holder)
    assert following == ReadyRef(id="q", group="g", function="f")


def test_functions_that_the_worker_does_not_know_are_left_for_others(start, holder):
    start()
    assert claims.claim_ready("g", ["other"], 10, holder) == ([], None)


def test_a_suspended_promise_is_claimable_only_when_nothing_it_awaits_is_pending(start, claim, holder):
    start()
    parent = claim()
    suspend(parent, call(parent, 0), call(parent, 1, Kind.RFI), awaits=("p.0",))
    assert claims.claim_named(NAMED, holder) == (None, None)
    resolve(claim("p.0", "child"), '{"b":1,"a":1e22,"c":-0.0}')
    resumed = claim()
    assert resumed.fence == 2
    first, second = resumed.invocation.checkpoints
    assert (first.id, first.value, first.is_awaited) == ("p.0", '{"b":1,"a":1e22,"c":-0.0}', True)
    assert (second.id, second.state, second.is_awaited) == ("p.1", "pending", False)


def test_a_message_for_another_function_claims_nothing(start, holder):
    start()
    assert claims.claim_named(ReadyRef(id="p", group="g", function="other"), holder) == (None, None)
    assert claims.claim_named(ReadyRef(id="p", group="other", function="f"), holder) == (None, None)
    assert promises.get("p").phase is Phase.READY


def test_a_claim_undone_by_a_crash_does_not_let_two_write(start, claim, holder):
    start()
    first = claim()
    other = Holder(node_id=holder.node_id, session=2)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE flows_promise SET phase = 'ready', fence = 0, node_id = NULL, session = NULL")
    second, _ = claims.claim_named(NAMED, other)
    assert second is not None
    assert second.fence == first.fence
    assert resolve(first) is None
    assert resolve(second) is not None


def test_claims_change_no_index(start, claim, holder):
    """Of many calls that were made at once each new row finds room beside the old one."""
    start()
    parent = claim()
    suspend(parent, *(call(parent, position) for position in range(300)))
    beside = "SELECT pg_stat_get_xact_tuples_hot_updated('flows_promise'::regclass) AS count"
    with transaction.atomic():
        before = sql.rows(beside)[0]["count"]
        for _ in range(3):
            taken, _ = claims.claim_ready("g", ["child"], 100, holder)
            assert len(taken) == 100
        assert sql.rows(beside)[0]["count"] - before > 270


def test_what_a_message_claims_before_anybody_has_woken_it_is_taken_back_from_who_dies(start, claim, holder):
    start()
    parent = claim()
    suspend(parent, call(parent, 0), call(parent, 1))
    for child in ("p.0", "p.1"):
        resolve(claim(child, "child"))
    assert promises.get("p").phase is Phase.SUSPENDED
    claim()
    expire_lease(holder)
    assert [each.id for each in sweeps.recover().ready] == ["p"]


def test_what_has_killed_a_process_is_claimed_alone(start, holder):
    for name in ("a", "b", "c", "d"):
        start(name)
    sql.rows("UPDATE flows_promise SET losses = 1 WHERE id = 'b'")
    batches = []
    while claimed := claims.claim_ready("g", ["f"], 10, holder)[0]:
        batches.append([each.invocation.id for each in claimed])
    assert batches == [["a"], ["b"], ["c", "d"]]
