"""Reads a small regular file; refuses pipes, devices and the like."""

import os
import stat
from pathlib import Path

MAX_BYTES = 2**20


def read_regular(path: Path) -> bytes:
    """Return the bytes of a regular file of at most 1 MiB. Raises OSError.

    Never waits for the other end of a pipe.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is not a regular file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(0, "it is larger than 1 MiB")
    return data
