"""Launchers that end with their test."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launched import Launch, Launcher
from tests.support.processes import alive, descendants


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start a launcher; whatever is left of it at the end is killed."""
    runs: list[Launcher] = []

    def run(*options: str, **more: str) -> Launcher:
        runs.append(Launcher(tmp_path, *options, **more))
        return runs[-1]

    yield run
    for launched in runs:
        left = descendants(launched.process.pid)
        for pid in [launched.process.pid, *left]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        launched.process.wait()
