"""The small parent that ends one command and all that it leaves behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.engines import supervisor
from tests.support.processes import descendants, gone

# Ignores SIGTERM, as something that hangs, and has a child that does not know of its parent.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""


def start(grace_s: float, script: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-I", "-S", str(Path(supervisor.__file__)), str(grace_s), "TERM"]
    process = subprocess.Popen(
        [*command, sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    if script is STUBBORN:
        assert process.stdout.readline() == "ready\n"
    return process


def test_the_exit_code_is_the_commands() -> None:
    with start(9, "raise SystemExit(3)") as process:
        assert process.wait(10) == 3


@pytest.mark.parametrize("time", range(5))  # the second one may come at any place
def test_told_twice_it_ends_everything_at_once(time: int) -> None:
    """Even where the second signal comes right behind the first."""
    with start(600, STUBBORN) as process:
        pids = descendants(process.pid)
        assert len(pids) == 2
        while process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        assert gone(pids)


def test_told_once_it_waits_for_the_grace() -> None:
    with start(0.1, STUBBORN) as process:
        pids = descendants(process.pid)
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGKILL
        assert gone(pids)
