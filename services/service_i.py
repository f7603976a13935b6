"""service-i: one leaf of the fan-out."""

import logging

from flows import Context, durable

log = logging.getLogger(__name__)


@durable(group="service-i")
def dop(ctx: Context) -> int:
    log.info("running function dop")
    return 1
