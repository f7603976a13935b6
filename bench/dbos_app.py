"""The same call graphs as DBOS workflows. `python -m bench.dbos_app QUEUE` serves one queue, until it is stopped."""

import os
import sys
import threading

from dbos import DBOS, DBOSConfig

# How often a queue is polled, and how often a waiting workflow looks for a result. DBOS's own default is 1 s for both.
POLL_S = float(os.environ["POLL_S"])


def main(queue: str) -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": os.environ["DBOS_SYSTEM_DATABASE_URL"],
        "application_version": "1",
        "executor_id": f"{queue}-{os.getpid()}",
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.listen_queues([queue])
    DBOS.launch()
    DBOS.register_queue(queue, polling_interval_sec=POLL_S)
    threading.Event().wait()


@DBOS.workflow()
def foo() -> int:
    return DBOS.enqueue_workflow("b", bar).get_result(polling_interval_sec=POLL_S) + 1


@DBOS.workflow()
def bar() -> int:
    return DBOS.enqueue_workflow("c", baz).get_result(polling_interval_sec=POLL_S) + 1


@DBOS.workflow()
def baz() -> int:
    return 1


@DBOS.workflow()
def leaf() -> int:
    return 1


@DBOS.workflow()
def fan_out(count: int) -> int:
    handles = [DBOS.enqueue_workflow("b", leaf) for _ in range(count)]
    return sum(handle.get_result(polling_interval_sec=POLL_S) for handle in handles)


@DBOS.workflow()
def calls(count: int) -> int:
    return sum(DBOS.enqueue_workflow("b", leaf).get_result(polling_interval_sec=POLL_S) for _ in range(count))


@DBOS.workflow()
def steps(count: int) -> int:
    return sum(_one() for _ in range(count))


@DBOS.step()
def _one() -> int:
    return 1


if __name__ == "__main__":
    main(sys.argv[1])
