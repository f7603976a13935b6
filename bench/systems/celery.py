"""Plain Celery, Redis as broker and as result backend: nested calls, and canvas."""

from functools import partial
from typing import Any

from bench.system import Outcome, Side, System, redis_url
from local.servers import Servers

BROKER, RESULTS = 1, 2


class Client:
    """A process with the Celery app of the tasks."""

    def __init__(self) -> None:
        from bench import plain

        self._tasks = plain

    def nested(self) -> Outcome:
        """Foo waits for bar, which waits for baz: each holds its worker meanwhile."""
        return self._outcome(self._tasks.foo.delay())

    def chain(self) -> Outcome:
        """Hand baz's value on, twice; only the last result is kept."""
        from celery import chain

        tasks = self._tasks
        linear = chain(tasks.chained_baz.s(), tasks.chained_bar.s(), tasks.chained_foo.s())
        return self._outcome(linear.delay())

    def calls(self, count: int) -> Outcome:
        """Call a leaf and wait for it, so many times, and hold the worker meanwhile."""
        return self._outcome(self._tasks.calls.delay(count))

    def chord(self, count: int) -> Outcome:
        return self._chord([self._tasks.leaf.s()] * count)

    def sleepy_chord(self, count: int, milliseconds: int) -> Outcome:
        return self._chord([self._tasks.sleepy_leaf.s(milliseconds)] * count)

    def _chord(self, header: list[Any]) -> Outcome:
        from celery import chord

        return self._outcome(chord(header)(self._tasks.total.s()))

    def _outcome(self, result: Any) -> Outcome:
        return partial(result.get, interval=self._tasks.POLL_S)


def _variables(servers: Servers) -> dict[str, str]:
    return {
        "REDIS_URL": redis_url(servers, BROKER),
        "RESULT_BACKEND": redis_url(servers, RESULTS),
        "DJANGO_SETTINGS_MODULE": "",  # whatever our own environment says: no Django here
    }


SIDE = Side(name="celery", procfile="celery", client=Client, probe="nested", variables=_variables)
CONFIGURATION = "Redis as broker and result backend, late acks, prefetch multiplier 1, no events"
CELERY_NESTED = System(
    name="celery-nested",
    side=SIDE,
    does={"chain": "nested", "chains": "nested", "calls": "calls"},
    configuration=f"{CONFIGURATION}; foo calls `bar.delay().get()`, bar calls `baz.delay().get()`",
)
CELERY_CHAIN = System(
    name="celery-chain",
    side=SIDE,
    does={"chain": "chain", "chains": "chain"},
    configuration=f"{CONFIGURATION}; `chain` of three tasks, the results of the first two ignored",
)
CELERY_CHORD = System(
    name="celery-chord",
    side=SIDE,
    does={"fan_out": "chord", "sleepy_fan_out": "sleepy_chord"},
    configuration=f"{CONFIGURATION}; `chord` with a body that sums",
)
