"""service-b: the middle of the await chain."""

import logging
from collections.abc import Generator
from typing import Any

from flows import Context, durable

log = logging.getLogger(__name__)


@durable(group="service-b")
def bar(ctx: Context) -> Generator[Any, Any, int]:
    log.info("running function bar")
    value: int = yield from ctx.rpc("baz", target="poll://any@service-c")
    return value + 1
