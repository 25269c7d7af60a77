"""A child process under `supervisor.py`, which stops all its descendants."""

import asyncio
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from serve_app.errors import EngineStartError

logger = logging.getLogger("ray.serve")

_GUARD = str(Path(__file__).with_name("supervisor.py"))
_LAST_LINES = 20
_EXIT_CODE_WAIT_S = 1.0
_POLL_S = 0.02


class Process:
    """One run of a command. `last_line`: its last line of output, for errors."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, grace_s: float) -> None:
        self._name = name
        self._process = process
        self._grace_s = grace_s
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], env: Mapping[str, str], grace_s: float
    ) -> "Process":
        """Start `command` with `env` added to this process's environment.

        Await it on a thread that lives as long as the owner: when that thread ends, the kernel
        takes the owner for dead. Raises EngineStartError when there is no such command.
        """
        arguments = [sys.executable, "-I", "-S", _GUARD, str(grace_s), "TERM", *command]
        try:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                env={**os.environ, **env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=2**20,
            )
        except OSError as exc:
            raise EngineStartError(f"{name} can't be started: {exc}") from exc
        return cls(name, process, grace_s)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def last_line(self) -> str:
        return self._lines[-1] if self._lines else "it printed nothing"

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, from the kernel: an event loop may miss a child's end."""
        if self._process.returncode is not None:
            return True
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return sys.platform == "linux"
        return state == "Z"

    async def wait(self) -> int | None:
        """Wait for its end and the rest of its output; return the exit code, if known."""
        await asyncio.shield(self._reader)
        try:
            return await asyncio.wait_for(self._process.wait(), _EXIT_CODE_WAIT_S)
        except TimeoutError:
            return self._process.returncode

    async def stop(self) -> None:
        """Stop the process and its descendants. Safe to call twice."""
        with suppress(ProcessLookupError):
            if not self.has_ended:
                self._process.terminate()
            if not await self._ends_within(self._grace_s + 6):
                self._process.kill()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), 2 * _EXIT_CODE_WAIT_S)

    async def _ends_within(self, seconds: float) -> bool:
        for _ in range(int(seconds / _POLL_S)):
            if self.has_ended:
                return True
            await asyncio.sleep(_POLL_S)
        return self.has_ended

    async def _read(self) -> None:
        while line := await self._line():
            text = line.decode(errors="replace").rstrip()
            if text:
                self._lines.append(text)
                logger.debug("%s: %s", self._name, text)

    async def _line(self) -> bytes:
        """Return the next line, b"" after the last one."""
        assert self._process.stdout is not None
        try:
            return await self._process.stdout.readline()
        except ValueError:  # beyond the limit; reading goes on, or the process would block
            return b"(a line too long to keep)"


def free_port() -> int:
    """Return a port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
