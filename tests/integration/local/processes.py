"""What the tests of the local stack ask of processes."""

import psutil


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; one that has ended and waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
