"""service-d: the head of the detached chain."""

import logging
from collections.abc import Generator
from typing import Any

from flows import Context, durable

log = logging.getLogger(__name__)


@durable(group="service-d")
def qux(ctx: Context, arg: int) -> Generator[Any, Any, None]:
    log.info("running function qux")
    yield from ctx.detached("quz", arg + 1, target="poll://any@service-e")
