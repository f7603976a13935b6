"""service-c: the end of the await chain."""

import logging

from flows import Context, durable

log = logging.getLogger(__name__)


@durable(group="service-c")
def baz(ctx: Context) -> int:
    log.info("running function baz")
    return 1
