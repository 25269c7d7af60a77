"""Ports for servers that start some time after their port was chosen."""

import os
import random
import socket
from collections.abc import Iterator
from functools import cache
from itertools import cycle

# Below the ports that Linux gives to outgoing connections, above those of Ray's workers.
_FIRST, _LAST = 20_000, 30_000
_WORKERS = 16


def own_port() -> int:
    """Return a free port that no outgoing connection and no other worker of the tests takes.

    No port is returned twice, so that the servers of one test never conflict.
    """
    return next(port for port in _ports() if _is_free(port))


@cache
def _ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = list(range(_FIRST + worker % _WORKERS, _LAST, _WORKERS))
    random.shuffle(ports)
    return cycle(ports)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
