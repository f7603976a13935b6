"""A Celery consumer that outlives its broker, and what others put into its queues."""

import logging
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.worker import consumer

log = logging.getLogger(__name__)

# Celery's own pauses grow by 2 s up to 30 s, and end after a hundred.
_PAUSES = {"interval_start": 0.5, "interval_step": 0, "interval_max": 0.5}

# A process tells at once that it has begun; one that is busy with another message does not.
_HEAR_WITHIN_S = 0.5


class Consumer(consumer.Consumer):
    """Connects again after whatever ended its loop, drops messages that cannot be read, and ends without a wait."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._losses: tuple[type[Exception], ...] = tuple(self.connection_errors)  # type: ignore[has-type]
        refusals: tuple[type[Exception], ...] = self.channel_errors  # type: ignore[attr-defined]  # not in the stubs
        # What is no message at all raises the last three inside kombu's transport, where no handler stands: then the
        # connection is made anew. Redis refuses when it is out of memory.
        self.connection_errors = (*self._losses, *refusals, ValueError, TypeError, AttributeError)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, for as long as it takes, trying twice a second."""
        ensure = conn.ensure_connection

        def ensure_connection(errback: Any = None, _max_retries: Any = None, **options: Any) -> Any:
            return ensure(errback, None, **{**options, **_PAUSES})

        conn.ensure_connection = ensure_connection
        return super().ensure_connected(conn)

    def on_close(self) -> None:
        """Hear first from pool processes that were handed a message just now.

        Celery forgets what they have not told to have begun. With nothing else in hand it then reads no more of what
        they say, and each waits half a minute for that before it ends.
        """
        pool = getattr(self.pool, "_pool", None)
        if isinstance(pool, AsynPool):
            hear(pool)
        super().on_close()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Return what handles a message; one that cannot be read is logged and dropped.

        Put back, as Celery would, it would end one worker after the other.
        """
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> Any:
            try:
                return handle(message)
            except self._losses:
                raise
            except Exception:
                log.exception("a message that cannot be read is dropped")
                return message.reject()

        return on_task_received


def hear(pool: Any) -> None:
    """Read what processes of Celery's own pool say until all that were handed a message have told that they began."""
    deadline = time.monotonic() + _HEAR_WITHIN_S
    while (left_s := deadline - time.monotonic()) > 0 and any(map(_is_unheard, pool._cache.values())):  # noqa: SLF001
        for descriptor in wait(list(pool._fileno_to_outq), left_s):  # noqa: SLF001
            pool.handle_result_event(descriptor)


def _is_unheard(job: Any) -> bool:
    return job._write_to is not None and not job._accepted  # noqa: SLF001
