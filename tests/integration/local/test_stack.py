import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from local.process import ROOT
from local.stack import Stack, StackError
from tests.integration.local.processes import is_alive
from tests.waiting import wait_until

PROCFILE = """\
steady: sleep 600
talker: sh -c 'echo "$INSTANCE says $GREETING"; sleep 600'
stubborn: sh -c 'trap "" TERM; echo deaf; while :; do sleep 1; done'
broken: sh -c 'echo no such luck; exit 3'
"""

ORPHANED = """
import os, signal, sys
from pathlib import Path
from local.stack import Stack
folder = Path(sys.argv[1])
stack = Stack({}, folder=folder, only=["steady"], procfile=folder / "Procfile").start()
print(*stack.pids("steady"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    (tmp_path / "Procfile").write_text(PROCFILE)
    made: list[Stack] = []

    def make(*only: str, **options: object) -> Stack:
        variables = {"GREETING": "hello"}
        made.append(Stack(variables, folder=tmp_path, only=only, procfile=tmp_path / "Procfile", **options))  # type: ignore[arg-type]
        return made[-1].start()

    yield make
    for stack in made:
        stack.stop()


def test_killed_process_is_started_again(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("steady")
    (old,) = stack.kill("steady")
    wait_until(lambda: stack.pids("steady") not in ([], [old]))


def test_without_restarts_a_killed_process_stays_dead(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("steady", "talker", restarts=False)
    stack.kill("steady")
    stack.scale("talker", 2)
    assert stack.pids("steady") == []
    assert len(stack.pids("talker")) == 2


def test_each_instance_has_its_name_and_its_log(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("talker", counts={"talker": 2})
    wait_until(lambda: " says hello" in stack.log("talker").read_text())
    wait_until(lambda: ".2 says hello" in stack.log("talker", instance=2).read_text())
    assert list(stack.logs()) == ["talker", "talker.2"]


def test_scaling_down_stops_the_last_instances(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("steady", counts={"steady": 3})
    first, *others = stack.pids("steady")
    stack.scale("steady", 1)
    assert stack.pids("steady") == [first]
    assert not any(map(is_alive, others))


def test_stop_kills_what_does_not_listen(make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.stack.GRACE_S", 0.2)
    stack = make_stack("stubborn")
    wait_until(lambda: "deaf" in stack.log("stubborn").read_text())
    (pid,) = stack.pids("stubborn")
    children = psutil.Process(pid).children()
    stack.stop()
    wait_until(lambda: not any(is_alive(process) for process in (pid, *(child.pid for child in children))))


def test_process_that_cannot_live_is_reported_with_its_log(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("broken", "steady")
    stack._unready = lambda: "not ready"  # type: ignore[method-assign]
    with pytest.raises(StackError, match="no such luck"):
        stack.wait_ready()


def test_unknown_process_is_refused(make_stack: Callable[..., Stack]) -> None:
    with pytest.raises(StackError, match="worker-z"):
        make_stack("worker-z")


def test_nothing_is_left_running_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text(PROCFILE)
    command = [sys.executable, "-c", ORPHANED, str(tmp_path)]
    supervisor = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert supervisor.returncode == -signal.SIGKILL
    wait_until(lambda: not is_alive(int(supervisor.stdout)))
