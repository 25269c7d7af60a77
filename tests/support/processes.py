"""Processes as the kernel lists them."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep


def _parents() -> dict[int, int]:
    """Return the parent of every process.

    `/proc/PID/task/TID/children` may omit some while others end.
    """
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (folder / "stat").read_text().rpartition(")")[2]
            parents[int(folder.name)] = int(stat.split()[1])
    return parents


def children(pid: int) -> list[int]:
    return [child for child, parent in _parents().items() if parent == pid]


def descendants(pid: int) -> list[int]:
    parents = _parents()

    def below(top: int) -> list[int]:
        return [p for child in parents if parents[child] == top for p in (child, *below(child))]

    return below(pid)


def alive(pid: int) -> bool:
    """Tell whether a process is neither gone nor waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: Iterable[int], within_s: float = 10) -> bool:
    """Tell whether all of `pids` end within the bound."""
    left, deadline = set(pids), monotonic() + within_s
    while left and monotonic() < deadline:
        left = {pid for pid in left if alive(pid)}
        sleep(0.01)
    return not left


def command(pid: int) -> str:
    """Return the command line of a process, "" when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def own_command(pid: int) -> str:
    """Return the command line, "" for a supervisor, which holds that of its child."""
    line = command(pid)
    return "" if "supervisor.py" in line else line
