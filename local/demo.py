"""`make demo`: the three routes, then a worker killed with -9 in the middle of a flow. Ends by itself.

Status 0 means that everything happened as it says.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from local.memory import memory_mb
from local.servers import LOCAL, ServerError, Servers
from local.stack import Stack, StackError

FOLDER = LOCAL / "demo"
# Its own for each run: on a database that is not ours, the promises of earlier runs are still there.
KEY = f"demo-{int(time.time())}"
FLOW = f"await-chain:{KEY}"
SLOW_MOTION_S = 1.5


class Unexpected(Exception):
    """The product did not do what the demonstration says."""


def main() -> int:
    started_at = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        # Promises are for ever, and the routes' ids are fixed: a second run would only find the first one's answers.
        shutil.rmtree(FOLDER, ignore_errors=True)
        with Servers.start(FOLDER) as servers:
            _run(servers)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except (ServerError, StackError, Unexpected) as error:
        print(f"\nThe demonstration failed: {error}", file=sys.stderr)
        return 1
    _say(f"Everything is stopped. It took {time.monotonic() - started_at:.0f} s. `make up` starts the same and stays.")
    return 0


def _run(servers: Servers) -> None:
    _say("PostgreSQL and Redis run. PostgreSQL holds the truth; Redis only carries hints.")
    stack = Stack(servers.environ, folder=FOLDER)
    stack.migrate()
    with stack:
        stack.wait_ready()
        _say(f"The gateway, {len(_workers(stack))} Celery workers (one per group) and Flower run.")
        with httpx.Client(base_url=stack.gateway_url, timeout=60) as gateway:
            _show_routes(stack, gateway, {} if servers.own_postgres else {"Idempotency-Key": KEY})
            _show_kill(stack, servers, gateway)
        _show_memory(stack)


def _show_routes(stack: Stack, gateway: httpx.Client, headers: dict[str, str]) -> None:
    _say("Three routes. The ids of the flows are fixed: the same request again finds the same flow.")
    _post(gateway, "/await-chain", 3, "foo awaits bar awaits baz, each in its own worker", headers)
    _post(gateway, "/await-chain", 3, "sent again: nothing ran, the answer was there", headers)
    _post(gateway, "/detached-chain", "detached-chain started", "qux starts quz starts cog, nobody waits", headers)
    _await(lambda: "3" in stack.log("worker-f").read_text().splitlines(), "service-f to print 3")
    print("  service-f printed 3")
    _post(gateway, "/fan-out-workflow", 3, "zim awaits rax and dop, which run at the same time", headers)


def _show_kill(stack: Stack, servers: Servers, gateway: httpx.Client) -> None:
    _say("Now two workers serve service-b, in slow motion, so that there is time to kill the one that has the flow.")
    stack.scale("worker-b", 0)
    variables = {**servers.environ, "FLOWS_SLOW_MOTION_S": str(SLOW_MOTION_S)}
    slow = Stack(variables, folder=FOLDER / "slow", only={"worker-b"}, counts={"worker-b": 2}, restarts=False)
    with slow:
        slow.wait_ready()
        answer = gateway.post("/await-chain", headers={"Idempotency-Key": KEY, "Prefer": "respond-async"})
        print(f"  POST /await-chain, Idempotency-Key: {KEY} → {answer.status_code}, the flow is {FLOW}")
        victim = _await(lambda: _running_attempt(gateway, f"{FLOW}.0", fence=2), "bar to go on after baz")
        pid = slow.pids("worker-b")[1 if ".2@" in victim["node"] else 0]
        print(f"  baz has settled and bar goes on, in {victim['node']} (pid {pid})")
        os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        print(f"  kill -9 {pid}: nobody told anybody, and the work in its hands is gone")
        heir = _await(lambda: _running_attempt(gateway, f"{FLOW}.0", fence=3), "another worker to take over")
        print(f"  {time.monotonic() - killed_at:.1f} s later bar runs in {heir['node']}")
        _say("The client lost its connection, and sends its request again.")
        _post(gateway, "/await-chain", 3, "the same flow, and its answer", {"Idempotency-Key": KEY})
    _show_tree(gateway)


def _show_tree(gateway: httpx.Client) -> None:
    _say("What happened, as the table has it. What was done was not done again.")
    outcomes = {}
    for depth, promise in _tree(gateway, FLOW):
        attempts = [attempt["outcome"] for attempt in promise["attempts"]]
        outcomes[promise["function"]] = attempts
        name = f"{'   ' * depth}{promise['function']}"
        print(f"  {name:<12} {promise['state']} with {promise['value']}; its attempts: {', '.join(attempts)}")
    expected = {
        "foo": ["suspended", "resolved"],
        "bar": ["suspended", "lost", "resolved"],
        "baz": ["resolved"],
    }
    if outcomes != expected:
        raise Unexpected(f"the attempts are {outcomes}, not {expected}")
    print("  foo and baz did not run again; bar ran again from where it was, not from its beginning")


def _show_memory(stack: Stack) -> None:
    sizes = {name: sum(memory_mb(pid) for pid in stack.pids(name)) for name in stack.names}
    workers = [size for name, size in sizes.items() if name in _workers(stack) and size]
    _say(
        f"Memory: {sum(sizes.values()):.0f} MB in all; a worker {sum(workers) / len(workers):.0f} MB, "
        f"the gateway {sizes['gateway']:.0f} MB, Flower {sizes['flower']:.0f} MB."
    )


def _post(gateway: httpx.Client, route: str, expected: object, why: str, headers: dict[str, str]) -> None:
    began = time.monotonic()
    answer = gateway.post(route, headers=headers)
    took_ms = (time.monotonic() - began) * 1000
    print(f"  POST {route} → {answer.status_code} {answer.text.strip()}   {took_ms:.0f} ms   {why}")
    if (answer.status_code, answer.json()) != (200, {"message": expected}):
        raise Unexpected(f"POST {route} should answer 200 with {expected!r}")


def _running_attempt(gateway: httpx.Client, promise_id: str, *, fence: int) -> dict[str, Any] | None:
    answer = gateway.get(f"/promises/{promise_id}")
    attempts: list[dict[str, Any]] = answer.json()["attempts"] if answer.status_code == httpx.codes.OK else []
    return next((each for each in attempts if each["fence"] == fence), None)


def _tree(gateway: httpx.Client, promise_id: str, depth: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    promise = gateway.get(f"/promises/{promise_id}").json()
    yield depth, promise
    for child in promise["children"]:
        yield from _tree(gateway, child, depth + 1)


def _await(look: Callable[[], Any], what: str, within_s: float = 30) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise Unexpected(f"waited {within_s:.0f} s for {what}")
        time.sleep(0.02)
    return found


def _workers(stack: Stack) -> list[str]:
    return [name for name in stack.names if name.startswith("worker-")]


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
