"""`make test` runs this first: sees to it that there is a Chromium for the browser tests, where it may.

Installs the system's own package, as root, where there is apt-get. Elsewhere it only says what will be skipped.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
NOTICE = "There is no Chromium: the tests in tests/browser are skipped. Install one, or set CHROMIUM to its path."
COMMANDS = (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"])


def find() -> str | None:
    """Return the path of a Chromium, None if there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def main() -> int:
    if not find() and os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing Chromium for the browser tests", flush=True)
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in COMMANDS:
            subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, check=False)
    if not find():
        print(NOTICE, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
