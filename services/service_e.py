"""service-e: the middle of the detached chain."""

import logging
from collections.abc import Generator
from typing import Any

from flows import Context, durable

log = logging.getLogger(__name__)


@durable(group="service-e")
def quz(ctx: Context, arg: int) -> Generator[Any, Any, int]:
    log.info("running function quz")
    yield from ctx.detached("cog", arg + 1, target="poll://any@service-f")
    return arg + 1
