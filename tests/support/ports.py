"""Ports for servers that start some time after their port was chosen."""

import os
import random
import socket

# Below those that Linux gives to outgoing connections, above those of Ray's workers.
_FIRST, _LAST = 20_000, 30_000
_WORKERS = 16


def own_port() -> int:
    """Return a free port that no outgoing connection and no other worker of the tests takes."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = random.randrange(_FIRST, _LAST, _WORKERS) + worker % _WORKERS
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
