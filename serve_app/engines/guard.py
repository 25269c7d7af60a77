"""Runs one command and leaves nothing of it behind, whatever happens to whom.

    python -I -S guard.py GRACE_S SIGNAL COMMAND [ARGUMENT…]

An engine may have children of its own (`ollama serve` has llama-server, which outlives a killed
`ollama serve`), and whoever started the engine may be killed. This small parent in between is told
by the kernel when its own parent dies, adopts whatever the command leaves behind, and ends all of
it: SIGNAL (TERM, INT) to the command, GRACE_S seconds, SIGKILL to every descendant; at once when it
is told twice. It stays in its parent's process group, so that killing the group takes it along.
Standard library only: it starts in 20 ms.

Exits with the command's code, or 128 + the signal that ended it.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class _Told(Exception):
    """Somebody, or the death of our parent, tells us to end."""


def main() -> int:
    grace_s, number, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    starter = os.getppid()
    signal.signal(signal.SIGTERM, _tell)
    signal.signal(signal.SIGINT, _tell)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = subprocess.Popen(command, preexec_fn=_in_child)
    try:
        _wait(child, starter)
    except _Told:
        _end(child, signal.Signals[f"SIG{number}"], grace_s)
    _kill_descendants()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _tell(number: int, frame: object) -> None:
    raise _Told


def _wait(child: subprocess.Popen[bytes], starter: int) -> None:
    while child.poll() is None:
        try:
            child.wait(1.0)
        except subprocess.TimeoutExpired:
            # For systems without prctl, and for a parent that died before it.
            if os.getppid() != starter:
                raise _Told from None


def _in_child() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _end(child: subprocess.Popen[bytes], number: signal.Signals, grace_s: float) -> None:
    child.send_signal(number)
    try:
        child.wait(grace_s)
    except (subprocess.TimeoutExpired, _Told):
        child.kill()
        child.wait()


def _kill_descendants() -> None:
    """Kill until none is left: a dying parent hands its children to us, one level a round."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and (pids := list(_children())):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)


def _children() -> Iterator[int]:
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return
    yield from map(int, listed.split())


if __name__ == "__main__":
    sys.exit(main())
