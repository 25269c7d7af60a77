"""An engine's counts by request, in a file that outlives a killed engine.

A line has the first word of a prompt, which names the request, the engine's process, and an event.
Lines are appended at once, so that several engines may share a file.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serve_app.simulator.tasks import GenerationTask

_PROMPT, _TOKENS, _END = "prompt", "tokens", "end"


@dataclass
class Attempt:
    """One generation. `whole`: all its tokens were generated."""

    prompt: int
    generated: int = 0
    whole: bool = False


class Journal:
    """Appends to the file at `path`; "" for no journal."""

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600) if path else None

    def begin(self, task: GenerationTask) -> None:
        """Note a prompt that has been read."""
        self._write(task, _PROMPT, len(task.words))

    def add(self, task: GenerationTask, tokens: int) -> None:
        self._write(task, _TOKENS, tokens)

    def end(self, task: GenerationTask) -> None:
        """Note that the answer is whole; its counts have not been sent yet."""
        self._write(task, _END, 0)

    def _write(self, task: GenerationTask, what: str, number: int) -> None:
        if self._file is not None:
            os.write(self._file, f"{task.words[0]} {os.getpid()} {what} {number}\n".encode())


def read(path: Path) -> Mapping[str, list[Attempt]]:
    """Return the attempts of each request, the oldest first."""
    attempts: dict[str, list[Attempt]] = {}
    latest: dict[tuple[str, str], Attempt] = {}
    for line in path.read_text().splitlines():
        name, process, what, number = line.split(" ")
        if what == _PROMPT:
            latest[name, process] = Attempt(int(number))
            attempts.setdefault(name, []).append(latest[name, process])
        elif what == _TOKENS:
            latest[name, process].generated += int(number)
        else:
            latest[name, process].whole = True
    return attempts
