"""Checks that the service can listen on an address before Ray starts, which takes seconds."""

import errno
import socket
from time import monotonic, sleep

from serve_app.errors import SettingsError


def check(host: str, port: int, within_s: float) -> None:
    """Raise SettingsError unless the port is free, because two runs of Serve would share it.

    `within_s`: seconds within which a process that was just stopped must release it.
    """
    if not 0 < port <= 65535:
        raise SettingsError(f"PORT={port} is not a port: choose one from 1024 to 65535")
    deadline = monotonic() + within_s
    while (problem := _bind(host, port)) and problem.errno == errno.EADDRINUSE:
        if monotonic() >= deadline:
            raise SettingsError(
                f"port {port} is taken: choose another (--port 8001, with make PORT=8001), or "
                "run `make clean-ports` if a killed run holds it"
            ) from problem
        sleep(0.05)
    if problem:
        cause = str(problem.strerror).partition(" (while")[0]
        raise SettingsError(
            f"can't listen on HOST={host} PORT={port} ({cause}): set HOST to an address of this "
            "machine (default: 127.0.0.1) and PORT to a free port above 1023"
        ) from problem


def _bind(host: str, port: int) -> OSError | None:
    """Listen on the address for a moment; return the error where that fails."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as exc:
        return exc
    return None
