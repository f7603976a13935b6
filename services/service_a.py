"""service-a: the head of the await chain."""

import logging
from collections.abc import Generator
from typing import Any

from flows import Context, durable

log = logging.getLogger(__name__)


@durable(group="service-a")
def foo(ctx: Context, arg: str) -> Generator[Any, Any, int]:
    log.info("running function foo")
    value: int = yield from ctx.rpc("bar", target="poll://any@service-b")
    return value + 1
