"""How a child process starts: tied to the life of this one, and never as root where a server refuses that.

Linux tools do the work (`setpriv`, `unshare`); elsewhere a child outlives a parent that is killed with -9.
"""

import functools
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NOBODY = "nobody"


class PrivilegeError(RuntimeError):
    """Running as root, and neither a user namespace nor `setpriv` is there to become another user."""


def tied(argv: Sequence[str], death_signal: signal.Signals) -> list[str]:
    """Let the kernel send `death_signal` to the process when its parent ends, however that happens.

    Linux counts the *thread* that started the process as its parent: start it from one that lives as long as it should.
    """
    if sys.platform == "linux" and shutil.which("setpriv"):
        # A parent that ended before the kernel was told sends no signal: then the process has another parent by now.
        has_parent = f'[ "$PPID" = {os.getpid()} ] || exit 1; exec "$@"'
        return ["setpriv", "--pdeathsig", death_signal.name.removeprefix("SIG"), "sh", "-c", has_parent, "sh", *argv]
    return list(argv)


def unprivileged(argv: Sequence[str], *, owner_of: Path) -> list[str]:
    """Run as somebody other than root, with `owner_of` theirs to write; unchanged if we are not root.

    In a user namespace root merely looks like another user, so files stay readable wherever the tree lies. Where
    that is forbidden (most containers), the process becomes `nobody`, who must be able to enter the tree's folders.
    """
    if os.geteuid() != 0:
        return list(argv)
    nobody = pwd.getpwnam(NOBODY)
    if _has_user_namespaces():
        return [*_namespace(nobody), *argv]
    if not shutil.which("setpriv"):
        raise PrivilegeError
    for path in (owner_of, *owner_of.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *argv]


def _namespace(user: pwd.struct_passwd) -> list[str]:
    return ["unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}"]


@functools.cache
def _has_user_namespaces() -> bool:
    if not shutil.which("unshare"):
        return False
    trial = subprocess.run([*_namespace(pwd.getpwnam(NOBODY)), "true"], capture_output=True, check=False)
    return trial.returncode == 0
