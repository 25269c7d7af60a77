"""A real Redis in a folder, and a socket before it that stalls on demand."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest

needed = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)
_START_S = 10.0


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[str]:
    """Start a Redis without a disk; yield its URL, of a Unix socket in `folder`."""
    path = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", *options]
    process = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        _wait(process, monotonic() + _START_S)
        yield f"unix://{path}"
    finally:
        process.terminate()
        process.communicate()
        path.unlink(missing_ok=True)


def _wait(process: "subprocess.Popen[str]", deadline: float) -> None:
    """Read the log until the server is ready. Raises AssertionError with its words otherwise."""
    assert process.stdout is not None
    words = ""
    for line in process.stdout:
        words += line
        if "eady to accept connections" in line or monotonic() > deadline:
            break
    assert "eady to accept connections" in words, words


class StallingProxy:
    """A Unix socket that forwards to another. While `stalls` is set, it returns nothing."""

    def __init__(self, path: Path, target: str) -> None:
        self.path = path
        self.url = f"unix://{path}"
        self.requests = 0  # reads from clients
        self._target = target.removeprefix("unix://")
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "StallingProxy":
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        self._open.clear()

    def go_on(self) -> None:
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        back, forth = await asyncio.open_unix_connection(self._target)
        try:
            await asyncio.gather(self._pass(reader, forth, True), self._pass(back, writer, False))
        finally:
            forth.close()
            writer.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_request: bool
    ) -> None:
        while data := await reader.read(1 << 16):
            self.requests += is_request
            if not is_request:
                await self._open.wait()
            writer.write(data)
        with suppress(OSError):
            writer.close()
