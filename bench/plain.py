"""A plain Celery app with the same call graphs, nothing durable. Its results lie where RESULT_BACKEND says."""

import os
import time
from collections.abc import Sequence

from celery import Celery

app = Celery("plain")
app.conf.update(
    broker_url=os.environ["REDIS_URL"],
    result_backend=os.environ["RESULT_BACKEND"],
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
    task_send_sent_event=False,
    broker_connection_retry_on_startup=True,
)
# How often a caller looks whether a result is there; a backend that notifies, as Redis does, does not look.
POLL_S = float(os.environ.get("POLL_S", "0.5"))


@app.task(queue="a")
def foo() -> int:
    return int(bar.delay().get(interval=POLL_S, disable_sync_subtasks=False)) + 1


@app.task(queue="b")
def bar() -> int:
    return int(baz.delay().get(interval=POLL_S, disable_sync_subtasks=False)) + 1


@app.task(queue="c")
def baz() -> int:
    return 1


@app.task(queue="c", ignore_result=True)
def chained_baz() -> int:
    return 1


@app.task(queue="b", ignore_result=True)
def chained_bar(value: int) -> int:
    return value + 1


@app.task(queue="a")
def chained_foo(value: int) -> int:
    return value + 1


@app.task(queue="b")
def leaf() -> int:
    return 1


@app.task(queue="a")
def calls(count: int) -> int:
    return sum(leaf.delay().get(interval=POLL_S, disable_sync_subtasks=False) for _ in range(count))


@app.task(queue="b")
def sleepy_leaf(milliseconds: int) -> int:
    time.sleep(milliseconds / 1000)  # the work itself
    return 1


@app.task(queue="a")
def total(values: Sequence[int]) -> int:
    return sum(values)
