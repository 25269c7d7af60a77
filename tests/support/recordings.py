"""Recorded answers of a real Ollama, where they are at hand, and a raw socket that plays them."""

import asyncio
import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2].parent / "shared" / "data" / "ollama"
needed = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the recordings are not at hand: no folder {FOLDER.name} beside"
)


@dataclass(frozen=True)
class Recording:
    """One request to a real Ollama and the bytes that came back."""

    name: str
    request: dict[str, Any]
    response: dict[str, Any]

    @property
    def path(self) -> str:
        return self.request["path"].partition("?")[0]

    @property
    def status(self) -> int | None:
        return self.response["status"]

    @cached_property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def pieces(self) -> list[bytes]:
        return [_bytes(chunk) for chunk in self.response["chunks"]]

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.response["headers"] if key.lower() == name]
        return values[0] if values else None

    @cached_property
    def streamed(self) -> bool:
        """Whether the request wants a stream, by its own field or the route's default."""
        default = self.path in ("/api/chat", "/api/generate")
        try:
            request_body = json.loads(self.request.get("body") or "{}")
        except ValueError:
            return default
        value = request_body.get("stream") if isinstance(request_body, dict) else None
        return default if value is None else bool(value)


def _bytes(chunk: dict[str, Any]) -> bytes:
    if "data_b64" in chunk:
        return base64.b64decode(chunk["data_b64"])
    data: str = chunk["data"]
    return data.encode()


def load(matches: Callable[[Recording], bool] = lambda _: True) -> list[Recording]:
    """Return the recordings for which `matches` is true; none where the folder is missing."""
    files = sorted(FOLDER.glob("*.json")) if FOLDER.is_dir() else []
    read = (Recording(file.stem, **_parts(file)) for file in files)
    return [recording for recording in read if matches(recording)]


def _parts(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text())
    return {"request": content["request"], "response": content["response"]}


class Player:
    """A raw server that plays `playing` to every POST, and is an Ollama with a model otherwise.

    It runs on its own thread, so that tests and Ray may block.
    """

    def __init__(self, model: str) -> None:
        self.playing: Recording | None = None
        self.requests = 0
        self._model = model
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def stop(self) -> None:
        async def close() -> None:
            self._server.close()

        self._call(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-l")]
            await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
            await self._answer(head.split(b" ")[1].decode(), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        own = {
            "/api/version": {"version": "0.33.0"},
            "/api/tags": {"models": [{"name": self._model}]},
            "/api/ps": {"models": [{"name": self._model}]},
        }
        if self.playing is None or path in own:
            writer.write(_plain(json.dumps(own.get(path, {"done": True})).encode()))
            return
        self.requests += 1
        await _play(self.playing, writer)


def _plain(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


async def _play(recording: Recording, writer: asyncio.StreamWriter) -> None:
    """Play the recorded bytes with their framing and ending."""
    response = recording.response
    if response["status"] is None:
        return
    chunked = response["framing"] == "chunked"
    skipped = ("content-length", "connection", "date")
    headers = [f"{k}: {v}" for k, v in response["headers"] if k.lower() not in skipped]
    if not chunked:  # some recorded bodies were shortened: their length is counted anew
        headers.append(f"Content-Length: {len(recording.body)}")
    status = f"HTTP/1.1 {response['status']} {response['reason']}"
    writer.write("\r\n".join([status, *headers, "Connection: close", "", ""]).encode())
    for piece in recording.pieces:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
    if chunked and response["ended"] == "clean":
        writer.write(b"0\r\n\r\n")
    await writer.drain()
