"""service-g: the fan-out."""

import logging
from collections.abc import Generator
from typing import Any

from flows import Context, durable

log = logging.getLogger(__name__)


@durable(group="service-g")
def zim(ctx: Context, arg: int) -> Generator[Any, Any, int]:
    log.info("running function zim")
    future_rax = yield from ctx.rfi("rax", target="poll://any@service-h")
    future_dop = yield from ctx.rfi("dop", target="poll://any@service-i")
    rax: int = yield from future_rax
    dop: int = yield from future_dop
    return rax + dop + arg
