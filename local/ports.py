"""Free TCP ports on the loopback address."""

import random
import socket

LOOPBACK = "127.0.0.1"

# Below the range from which kernels take source ports: while a server is down, a client that keeps knocking on a port
# of that range may be given the very same port as its own, and then talk to itself.
CANDIDATES = range(15_000, 32_000)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port(preferred: int | None = None) -> int:
    """Return `preferred` if nobody listens there, or else some port where nobody does."""
    if preferred is not None and is_free(preferred):
        return preferred
    candidates = random.SystemRandom().sample(CANDIDATES, k=100)
    return next(port for port in candidates if is_free(port))
