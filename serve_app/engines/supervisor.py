"""Runs a command and kills all its descendants when it, or the parent of this process, exits.

    python -I -S supervisor.py GRACE_S SIGNAL COMMAND [ARGUMENT…]

An engine may have children of its own (`ollama serve` has llama-server, which outlives a killed
`ollama serve`), and the parent of the engine may be killed. This small process between them gets a
signal from the kernel when its parent dies, and adopts orphans of the command. It then sends SIGNAL
(TERM, INT) to the command and, after GRACE_S seconds, SIGKILL to every descendant; a second signal
skips the wait. It stays in its parent's process group, so that killing the group kills it too. It
uses the standard library alone, and so starts in 20 ms.

Exits with the command's code, or 128 + the signal that ended the command.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


_POLL_S = 0.05


class _StopSignals:
    """Counts signals to stop, from a user or the kernel.

    It raises no exception, which could come at any place, before the command is stopped.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, number: int, frame: object) -> None:
        self.count += 1


def main() -> int:
    """Run the command until it, or the parent, ends; return its exit code."""
    grace_s, number, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    parent, signals = os.getppid(), _StopSignals()
    signal.signal(signal.SIGTERM, signals)
    signal.signal(signal.SIGINT, signals)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = subprocess.Popen(command, preexec_fn=_in_child)
    # The parent's id is compared on systems without prctl, and in case it died before that call.
    if not _has_ended(child, lambda: signals.count or os.getppid() != parent):
        child.send_signal(signal.Signals[f"SIG{number}"])
        deadline = time.monotonic() + grace_s
        if not _has_ended(child, lambda: signals.count > 1 or time.monotonic() > deadline):
            child.kill()
            child.wait()
    _kill_descendants()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _has_ended(child: subprocess.Popen[bytes], until: Callable[[], object]) -> bool:
    """Wait for the child or `until()`; tell whether the child has ended."""
    pause_s = 0.001
    while child.poll() is None and not until():
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _POLL_S)
    return child.returncode is not None


def _in_child() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _kill_descendants() -> None:
    """Kill children until none is left; a killed child leaves its own children to this process."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (pids := list(_children())):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)


def _children() -> Iterator[int]:
    try:
        pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return
    yield from map(int, pids.split())


if __name__ == "__main__":
    sys.exit(main())
