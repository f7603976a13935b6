"""service-h: one leaf of the fan-out."""

import logging

from flows import Context, durable

log = logging.getLogger(__name__)


@durable(group="service-h")
def rax(ctx: Context) -> int:
    log.info("running function rax")
    return 1
