"""Runs one attempt: from a claim to a decision."""

import logging
import time

from flows.conf import settings
from flows.domain.errors import AttemptFenced
from flows.engine.decision import Decision
from flows.engine.registry import DurableFunction
from flows.engine.replay import replay
from flows.store.claims import Claim
from flows.worker.ledger import Ledger

log = logging.getLogger(__name__)


def run_attempt(durable_function: DurableFunction, claim: Claim, ledger: Ledger) -> Decision | None:
    """Run ``claim`` and return the decision, which is not committed yet; None if the claim was lost meanwhile."""
    if settings.SLOW_MOTION:
        time.sleep(settings.SLOW_MOTION.total_seconds())
    ledger.begin(claim)
    try:
        decision = replay(durable_function, claim.invocation, ledger)
    except AttemptFenced:
        ledger.abandon()
        log.warning("attempt %d of %s was fenced: its claim is gone", claim.fence, claim.invocation.id)
        return None
    except BaseException:
        ledger.abandon()
        raise
    return decision
