"""A worker ends at once also if a pool process was handed a message a moment ago."""

import subprocess
import sys

from local.process import ROOT

# In a process of its own, as the pool's are forked from it. Nobody reads what the process says until `hear` does.
STAGED = """
import os
import select

from celery.concurrency.asynpool import AsynPool
from kombu.asynchronous import Hub, set_event_loop

from flows.worker.consumer import hear

hub = Hub()
set_event_loop(hub)
pool = AsynPool(1, threads=False)
pool.register_with_event_loop(hub)
hub.call_repeatedly(0.01, lambda: None)
pool.apply_async(os.getpid)
(job,) = pool._cache.values()
while job._write_to is None or pool._active_writers:
    hub.run_once()
assert select.select(list(pool._fileno_to_outq), (), (), 10)[0], "the process says nothing"
assert not job._accepted
hear(pool)
pool.flush()
pool.close()
pool.join()
print(job.get())
"""


def test_a_process_that_was_handed_a_message_just_now_is_heard_before_the_pool_ends():
    # Without being heard the process waits for 30 s.
    ran = subprocess.run(
        [sys.executable, "-c", STAGED], cwd=ROOT, capture_output=True, text=True, timeout=15, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 0
