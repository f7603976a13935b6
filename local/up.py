"""`make up`: start everything, say where it is, stay until Ctrl-C.

Arguments such as `worker-b=2` start that many instances of a process.
"""

import signal
import sys
import threading

from local.console import Console
from local.environment import remembered
from local.servers import LOCAL, ServerError, Servers
from local.stack import Stack, StackError

ADMIN = "admin"
LOCATIONS = """
gateway  curl -X POST {gateway}/await-chain
         curl -X POST {gateway}/detached-chain
         curl -X POST {gateway}/fan-out-workflow
         curl {gateway}/promises/await-chain
admin    {gateway}/admin/  {login}
Flower   {flower}  {flower_login}
logs     {logs}
Ctrl-C stops everything.
"""


def main(arguments: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        _run(_counts(arguments))
    except KeyboardInterrupt:
        print("Everything is stopped.")
        return 0
    except (ServerError, StackError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(counts: dict[str, int]) -> None:
    print("Starting PostgreSQL and Redis", flush=True)
    with Servers.start() as servers:
        stack = Stack(servers.environ, counts=counts)
        stack.migrate()
        login = _ensure_superuser(stack)
        print(f"Starting {', '.join(stack.names)}", flush=True)
        with stack:
            stack.wait_ready()
            print(_locations(stack, login), flush=True)
            with Console(stack.logs()):
                threading.Event().wait()


def _ensure_superuser(stack: Stack) -> str:
    """Return the admin's name and password, or a hint if somebody else has made that user."""
    kept = LOCAL / "admin-password"
    is_ours = kept.exists()
    password = remembered(kept)
    made = stack.manage(
        "createsuperuser",
        "--no-input",
        f"--username={ADMIN}",
        f"--email={ADMIN}@localhost",
        DJANGO_SUPERUSER_PASSWORD=password,
    )
    if made.returncode == 0 or is_ours:
        return f"{ADMIN} / {password}"
    kept.unlink()
    return f"{ADMIN}, with the password that was set when this user was made"


def _locations(stack: Stack, login: str) -> str:
    return LOCATIONS.format(
        gateway=stack.gateway_url,
        flower=stack.flower_url,
        login=login,
        flower_login=stack.environ["FLOWER_BASIC_AUTH"].replace(":", " / ", 1),
        logs=LOCAL / "log",
    )


def _counts(arguments: list[str]) -> dict[str, int]:
    pairs = [argument.partition("=") for argument in arguments]
    try:
        return {name: int(count) for name, _, count in pairs}
    except ValueError:
        raise SystemExit("usage: python -m local.up [PROCESS=COUNT ...], for example worker-b=2") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
