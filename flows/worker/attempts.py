"""Runs one attempt: from a claim to a decision.

A function that waits stays open until its thread runs another attempt, or none for now: if the next one is of the same
promise, it goes on from there without a replay. Not with Django's DEBUG, so that what cannot be replayed shows at once.
"""

import threading
import time
from dataclasses import replace
from datetime import timedelta

from django.conf import settings as django_settings

from flows import tracing
from flows.conf import settings
from flows.domain.errors import AttemptFenced, UnknownVersionError
from flows.domain.promise import describe_error
from flows.engine.decision import Decision, Failed
from flows.engine.registry import registry
from flows.engine.replay import Execution, Runner
from flows.store.claims import Claim
from flows.worker import changes
from flows.worker.ledger import Ledger

# Until a worker with the right code comes for a call, in a rolling deployment.
POSTPONED_FOR = timedelta(seconds=5)


def run_attempt(claim: Claim, ledger: Ledger) -> Decision | None:
    """Run ``claim`` and return the decision, which is not committed yet; None if the claim was lost meanwhile."""
    invocation = claim.invocation
    try:
        durable_function = registry.get(invocation.group, invocation.function, invocation.version)
    except UnknownVersionError as error:
        ledger.begin(claim)
        return _postpone(claim, error)
    if settings.SLOW_MOTION:
        time.sleep(settings.SLOW_MOTION.total_seconds())
    # From its first attempt on a call keeps the version that ran it.
    if invocation.version is None:
        invocation = invocation._replace(version=durable_function.version)
        claim = replace(claim, invocation=invocation)
    with tracing.attempt(invocation, claim.trace) as span:
        # What is stored goes on through a worker that does not trace.
        ledger.begin(replace(claim, trace=span.trace) if span.trace else claim)
        try:
            decision = _thread.runner.run(durable_function, invocation, ledger)
        except AttemptFenced:
            ledger.abandon()
            changes.fenced(claim)
            span.fenced()
            return None
        except BaseException:
            ledger.abandon()
            raise
        span.decided(decision)
    if django_settings.DEBUG:
        close_open()
    return decision


def left_open() -> Execution | None:
    """Return the function that this thread has left open, if there is one."""
    return _thread.runner.open


def close_open() -> None:
    """Close the function that this thread has left open, if there is one."""
    _thread.runner.close()


class _Thread(threading.local):
    def __init__(self) -> None:
        self.runner = Runner()


_thread = _Thread()


def _postpone(claim: Claim, error: UnknownVersionError) -> Failed:
    """Leave the call to a worker that knows its version; that is not counted as a failure."""
    failures = claim.invocation.failures
    return Failed(error=describe_error(error), exception=error, delay=POSTPONED_FOR, failures=failures)
