"""Runs one command and leaves nothing of it behind, whatever happens to whom.

    python -I -S supervisor.py GRACE_S SIGNAL COMMAND [ARGUMENT…]

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
from collections.abc import Callable, Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


_POLL_S = 0.05


class _Told:
    """Counts how often somebody, or the death of our parent, has told us to end.

    It raises nothing: an exception could come at any place, also where nothing has been ended yet.
    """

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, number: int, frame: object) -> None:
        self.times += 1


def main() -> int:
    grace_s, number, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    starter, told = os.getppid(), _Told()
    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = subprocess.Popen(command, preexec_fn=_in_child)
    # The parent is for systems without prctl, and for one that died before it.
    if not _has_ended(child, lambda: told.times or os.getppid() != starter):
        child.send_signal(signal.Signals[f"SIG{number}"])
        deadline = time.monotonic() + grace_s
        if not _has_ended(child, lambda: told.times > 1 or time.monotonic() > deadline):
            child.kill()
            child.wait()
    _kill_descendants()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _has_ended(child: subprocess.Popen[bytes], until: Callable[[], object]) -> bool:
    """Wait for the child, as long as `until()` does not hold."""
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
    """Kill until none is left: a dying parent hands its children to us, one level a round."""
    deadline = time.monotonic() + 20
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
