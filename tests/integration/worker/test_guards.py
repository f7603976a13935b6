"""Guards that nothing misses until the worst moment: each test fails when its guard is taken out."""

import pytest
from django.db import OperationalError

from flows.domain.promise import State
from flows.engine.decision import Resolved, Suspended
from flows.store import outcomes, promises
from flows.worker.ledger import Ledger
from tests.integration.conftest import call


@pytest.fixture
def lose_answer(monkeypatch):
    """Have the answer to the next commit get lost: it is written, and the connection breaks."""

    def lose_answer():
        def commit(batch, **options):
            monkeypatch.setattr(outcomes, "commit", real)
            real(batch, **options)
            raise OperationalError("the connection broke after the commit")

        real = outcomes.commit
        monkeypatch.setattr(outcomes, "commit", commit)

    return lose_answer


def test_an_attempt_whose_answer_was_lost_goes_on_to_its_end(start, claim, queue_length, lose_answer):
    """Its calls are there already: that is no reason to set it aside."""
    start()
    running, ledger = claim(), Ledger()
    ledger.begin(running)
    ledger.record(call(running, 0))
    lose_answer()
    ledger.flush()
    ledger.record(call(running, 1))
    committed, _ = ledger.finish(Resolved(value="1"), celery_continues=False)
    assert committed is not None
    assert promises.get("p").state is State.RESOLVED
    assert promises.children("p", 10) == ["p.0", "p.1"]


def test_what_shared_its_commit_with_a_lost_answer_is_not_set_aside(
    start, claim, queue_length, lose_answer, monkeypatch
):
    monkeypatch.setattr("flows.worker.ledger.PATIENCE_S", 60)
    start("p")
    start("q")
    first, second = claim("p"), claim("q")
    written = Ledger()
    written.enqueue([first, second])
    written.begin_next()
    written.record(call(first, 0))
    written.defer(Suspended(awaits=("p.0",)))
    written.begin_next()
    written.record(call(second, 0))
    lose_answer()
    written.flush()
    assert (promises.get("p").phase, promises.get("p").note) == ("suspended", "")
    assert (promises.get("q").phase, promises.get("q").note) == ("claimed", "")
