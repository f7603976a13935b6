"""A function that waits stays open in its thread, and only there."""

import pytest
from celery import current_app, states

import flows
from flows.engine.decision import Resolved
from flows.engine.registry import registry
from flows.store import claims, promises
from flows.store.claims import ReadyRef
from flows.worker import process
from flows.worker.attempts import close_open, run_attempt
from flows.worker.ledger import Ledger, ledger

PARENT, CHILD = "p", "p.0"


@pytest.fixture
def entered(worker, monkeypatch):
    """Register a function that awaits baz twice; return how often it was begun from its top."""
    begun = []
    monkeypatch.setattr(registry, "_functions", dict(registry._functions))

    @flows.durable(group="service-c")
    def twice(ctx):
        begun.append(ctx.attempt)
        first = yield from ctx.rpc("baz")
        second = yield from ctx.rpc("baz")
        return first + second

    flows.begin_rpc(PARENT, "twice", target="service-c")
    yield begun
    close_open()


def claim(promise_id, function):
    named = ReadyRef(id=promise_id, group="service-c", function=function)
    found, _ = claims.claim_named(named, process.holder(), process.memory())
    assert found is not None
    return found


def resume():
    """Run the next attempt in this thread, and have another worker run the call that it waits for then."""
    decision = run_attempt(claim(PARENT, "twice"), ledger())
    assert decision is not None
    ledger().finish(decision, celery_continues=False)
    for awaited in getattr(decision, "awaits", ()):
        elsewhere = Ledger()
        elsewhere.begin(claim(awaited, "baz"))
        elsewhere.finish(Resolved(value="4"), celery_continues=False)
    return decision


def test_what_waits_goes_on_in_its_thread(entered):
    resume()
    resume()
    assert resume() == Resolved(value="8")
    assert entered == [1]
    assert [attempt["outcome"] for attempt in promises.attempts(PARENT)] == ["suspended", "suspended", "resolved"]
    assert promises.get(PARENT).value == 8


def test_what_waits_is_closed_before_another_attempt(entered):
    resume()
    flows.begin_rpc("other", "baz", target="service-c")
    run_attempt(claim("other", "baz"), ledger())
    resume()
    assert entered == [1, 2]


def test_what_waits_is_closed_when_the_task_of_its_message_ends(entered):
    resume()
    task = current_app.tasks["service-c.baz"]
    task.after_return(states.SUCCESS, None, PARENT, (), {}, None)  # type: ignore[arg-type]  # no exception, no einfo
    resume()
    assert entered == [1, 2]


def test_in_development_each_resume_replays(entered, settings):
    settings.DEBUG = True
    resume()
    resume()
    assert resume() == Resolved(value="8")
    assert entered == [1, 2, 3]
