from concurrent.futures import ThreadPoolExecutor

from django.db import connection

from flows.domain.promise import Phase
from flows.store import joins, promises
from tests.integration.conftest import call, resolve, suspend


def suspended_on(claim, count):
    parent = claim()
    suspend(parent, *(call(parent, position) for position in range(count)))
    return [claim(f"p.{position}", "child") for position in range(count)]


def test_a_parent_wakes_when_nothing_it_awaits_is_pending(start, claim):
    start()
    first, second = suspended_on(claim, 2)
    resolve(first)
    assert joins.join(["p"]) == []
    resolve(second)
    assert [each.id for each in joins.join(["p"])] == ["p"]
    assert joins.join(["p"]) == []
    assert promises.get("p").phase is Phase.READY


def test_exactly_one_of_many_finishing_children_wakes_the_parent(start, claim):
    start()
    children = suspended_on(claim, 12)

    def finish(child):
        try:
            resolve(child)
            return joins.join(["p"])
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as pool:
        woken = [ready for found in pool.map(finish, children) for ready in found]
    assert [each.id for each in woken] == ["p"]


def test_a_join_that_nobody_made_is_found(start, claim):
    start()
    first, second = suspended_on(claim, 2)
    resolve(first)
    assert joins.join_missed() == []
    resolve(second)
    assert [each.id for each in joins.join_missed()] == ["p"]
