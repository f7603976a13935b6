"""The workloads that all systems are given alike: which call, how often, one after the other or all at once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """``call`` is made ``times`` times in each of ``rounds`` rounds, and must give ``expected`` each time.

    ``warm_up`` stands for ``args`` in the calls before each round: after a freeze a worker first finds its connections.
    A sample of seconds is the time of ``units`` things: it becomes their rate, or the time of one.
    """

    name: str
    title: str
    call: str
    args: tuple[int, ...] = ()
    expected: int
    way: str = "one_at_a_time"
    times: int = 1
    rounds: int
    units: int = 1
    is_rate: bool = False
    warm_up: tuple[int, ...] = ()
    warm_up_expected: int
    base: str | None = None


LATENCY = Workload(
    name="W1",
    title="await chain, one at a time",
    call="chain",
    expected=3,
    warm_up_expected=3,
    times=40,
    rounds=5,
    base="celery-nested",
)
THROUGHPUT = Workload(
    name="W2",
    title="1,000 await chains at once",
    call="chains",
    expected=3,
    warm_up_expected=3,
    way="at_once",
    times=1000,
    rounds=3,
    units=1000,
    is_rate=True,
    base="celery-nested",
)
FAN_OUT_100 = Workload(
    name="W3-100",
    title="fan-out and join of 100",
    call="fan_out",
    args=(100,),
    expected=100,
    warm_up=(10,),
    warm_up_expected=10,
    times=3,
    rounds=5,
    base="celery-chord",
)
FAN_OUT_1000 = Workload(
    name="W3-1000",
    title="fan-out and join of 1,000",
    call="fan_out",
    args=(1000,),
    expected=1000,
    warm_up=(10,),
    warm_up_expected=10,
    rounds=7,
    base="celery-chord",
)
SLOW_FAN_OUT = Workload(
    name="W3-slow",
    title="fan-out and join of 1,000 that take 50 ms, on 32 threads (ideal: 1,563 ms)",
    call="sleepy_fan_out",
    args=(1000, 50),
    expected=1000,
    rounds=2,
    warm_up=(320, 50),
    warm_up_expected=320,
    base="celery-chord",
)
CALLS_10 = Workload(
    name="W5-10",
    title="a function with 10 sequential calls, per call",
    call="calls",
    args=(10,),
    expected=10,
    times=5,
    rounds=3,
    units=10,
    warm_up=(2,),
    warm_up_expected=2,
    base="celery-nested",
)
CALLS_1000 = Workload(
    name="W5-1000",
    title="a function with 1,000 sequential calls, per call",
    call="calls",
    args=(1000,),
    expected=1000,
    rounds=3,
    units=1000,
    warm_up=(2,),
    warm_up_expected=2,
    base="celery-nested",
)
STEPS = Workload(
    name="W6",
    title="a function with 1,000 local steps",
    call="steps",
    args=(1000,),
    expected=1000,
    times=3,
    rounds=3,
    units=1000,
    is_rate=True,
    warm_up=(2,),
    warm_up_expected=2,
)
# One is compared with the other: what the machine does meanwhile must fall on both alike.
CALLS = (CALLS_10, CALLS_1000)
