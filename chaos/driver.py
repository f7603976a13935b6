"""Starts the flows at their times, through Python and through HTTP, and answers what they ask. Survives all faults."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from random import Random
from typing import Any

import httpx
from django.db import InterfaceError, OperationalError

import flows
from chaos.database import RETRY_S, Database, persist
from chaos.plan import HTTP, Planned

log = logging.getLogger(__name__)

THREADS = 12
WAIT_S = 5
ANSWER_EVERY_S = 0.3
# So many of the flows are started twice, under the same id.
TWICE = 0.1

ASKED = """
SELECT id, args->0->'answer' AS answer FROM flows_promise
WHERE kind = 'external' AND state = 'pending' AND created_at < now() - interval '0.5 s' ORDER BY id
"""


class Driver:
    """Two threads until ``stop``: one starts flows, one settles what they ask. What went wrong is in ``violations``."""

    def __init__(self, planned: Sequence[Planned], database: Database, gateway_url: str, random: Random) -> None:
        self.violations: list[str] = []
        self.started = 0
        self._planned = planned
        self._database = database
        self._random = random
        self._gateway = httpx.Client(base_url=gateway_url, timeout=WAIT_S + 10)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="driver")
        self._stopping = threading.Event()
        self._all_started = threading.Event()
        self._threads = [threading.Thread(target=self._start_all), threading.Thread(target=self._answer_all)]

    @property
    def has_started_all(self) -> bool:
        """True once each flow has been started, or has failed to."""
        return self._all_started.is_set()

    def start(self) -> None:
        """Begin; flows are started at their times from now on."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, whatever has not been started yet."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._pool.shutdown(cancel_futures=True)
        self._gateway.close()

    def _start_all(self) -> None:
        began = time.monotonic()
        running: list[Future[None]] = []
        for flow in self._planned:
            # Open loop: a flow starts at its time, however long the ones before it take.
            if self._stopping.wait(max(0.0, began + flow.at_s - time.monotonic())):
                return
            start = self._post if flow.shape == HTTP else self._begin
            times = 2 if self._random.random() < TWICE else 1
            running += [self._pool.submit(self._guard, flow.id, partial(start, flow)) for _ in range(times)]
            self.started += 1
        for each in running:
            each.result()
        self._all_started.set()

    def _begin(self, flow: Planned) -> None:
        persist(
            lambda: flows.begin_rpc(flow.id, flow.function, *flow.args, target=flow.group),
            OperationalError,
            InterfaceError,
        )

    def _post(self, flow: Planned) -> None:
        key = flow.id.partition(":")[2]
        headers = {"Idempotency-Key": key, "Prefer": f"wait={WAIT_S}"}
        while not self._stopping.is_set():
            try:
                answer = self._gateway.post("/await-chain", headers=headers)
            except httpx.TransportError:
                self._stopping.wait(RETRY_S)
                continue
            if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
                self._stopping.wait(RETRY_S)
            elif answer.status_code == HTTPStatus.ACCEPTED:
                return
            else:
                if (answer.status_code, answer.json()) != (HTTPStatus.OK, {"message": flow.outcome.value}):
                    self.violations.append(f"POST {flow.id} was answered {answer.status_code}: {answer.text[:300]}")
                return

    def _answer_all(self) -> None:
        while not self._stopping.wait(ANSWER_EVERY_S):
            for asked in self._database.rows(ASKED):
                self._guard(asked["id"], partial(self._answer, asked["id"], asked["answer"]))

    def _answer(self, promise_id: str, answer: int | None) -> None:
        persist(lambda: _settle(promise_id, answer), OperationalError, InterfaceError)
        # Once more is no error and changes nothing; another outcome is refused.
        if persist(lambda: _settle(promise_id, answer), OperationalError, InterfaceError):
            self.violations.append(f"{promise_id} was settled twice")
        try:
            persist(lambda: flows.resolve(promise_id, "something else"), OperationalError, InterfaceError)
        except flows.PromiseConflict:
            return
        self.violations.append(f"{promise_id} took another outcome")

    def _guard(self, promise_id: str, act: Callable[[], Any]) -> None:
        """Do it; what it raises is for the report, not the end of the run."""
        try:
            act()
        except Exception as error:
            log.exception("the driver failed with %s", promise_id)
            self.violations.append(f"the driver failed with {promise_id}: {type(error).__name__}: {error}")


def _settle(promise_id: str, answer: int | None) -> bool:
    if answer is None:
        return flows.reject(promise_id, "refused")
    return flows.resolve(promise_id, answer)
