"""Processes as the kernel sees them."""

from collections.abc import Iterable
from pathlib import Path
from time import monotonic, sleep


def children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(p) for task in tasks for p in (task / "children").read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    return [p for child in children(pid) for p in (child, *descendants(child))]


def alive(pid: int) -> bool:
    """Neither gone nor waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: Iterable[int], within_s: float = 10) -> bool:
    """Whether all of `pids` end within the bound."""
    left, deadline = set(pids), monotonic() + within_s
    while left and monotonic() < deadline:
        left = {pid for pid in left if alive(pid)}
        sleep(0.01)
    return not left


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def own_command(pid: int) -> str:
    """The command line, unless it is a guard's, which holds that of its child."""
    line = command(pid)
    return "" if "guard.py" in line else line
