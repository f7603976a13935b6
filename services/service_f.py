"""service-f: the end of the detached chain."""

import logging

from flows import Context, durable

log = logging.getLogger(__name__)


@durable(group="service-f")
def cog(ctx: Context, arg: int) -> None:
    log.info("running function cog")
    print(arg, flush=True)
