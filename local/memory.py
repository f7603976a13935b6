"""How much memory a process and its children take."""

import psutil

BYTES_PER_MB = 1_000_000


def memory_mb(pid: int) -> float:
    """Return the proportional set size of the process and all its descendants, in megabytes.

    Pages that several processes share count once in the sum over all of them, so these numbers may be added up.
    """
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(_proportional_bytes(member) for member in family) / BYTES_PER_MB


def _proportional_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0
