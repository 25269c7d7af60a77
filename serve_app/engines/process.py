"""A supervised child process, behind `guard.py`, that leaves nothing behind."""

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

_GUARD = str(Path(__file__).with_name("guard.py"))
_LAST_LINES = 20


class Process:
    """One run of one command. `last_words` is what it said last, for error messages."""

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
        """Start `command` with `env` added to ours.

        Must be awaited on a thread that lives as long as the owner: when that thread ends, the
        kernel takes the owner for dead. Raises EngineStartError when there is no such command.
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
    def last_words(self) -> str:
        return self._lines[-1] if self._lines else "it said nothing"

    async def wait(self) -> int:
        """Its exit code, when it has ended and everything it said has been read."""
        await asyncio.shield(self._reader)
        return await self._process.wait()

    async def stop(self) -> None:
        """End it and all that it started. Safe to call twice."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), self._grace_s + 6)
            except TimeoutError:
                self._process.kill()
        await self.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError):  # a line beyond the limit: nothing that is worth keeping
            async for line in self._process.stdout:
                text = line.decode(errors="replace").rstrip()
                if text:
                    self._lines.append(text)
                    logger.debug("%s: %s", self._name, text)


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
