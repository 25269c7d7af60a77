"""A simulated Ollama in the process of the test, behind a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from serve_app.simulator.settings import parse_as
from serve_app.simulator.wire import ClientConnection
from tests.support.ollama_simulator.server import OllamaServer
from tests.support.ollama_simulator.settings import OllamaSettings
from tests.support.ollama_simulator.wire import OllamaConnection


class Engine:
    """A running simulator, and the requests that reached it."""

    def __init__(self, url: str, server: OllamaServer, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._server = server
        self._http = http

    def stats(self) -> dict[str, Any]:
        return self._server._control.stats()

    def reset(self) -> None:
        self._server._control.reset()

    def loaded(self) -> set[str]:
        """Return the names of the loaded models, without their tags."""
        return {model.name.partition(":")[0] for model in self._server._catalogue if model.loaded}

    def bodies(self, path: str) -> list[str]:
        """Return the bodies of the requests for a path."""
        return [entry["body"] for entry in self.stats()["history"] if entry["path"] == path]

    def whole_bodies(self, path: str) -> list[bytes]:
        """Return the uncut bodies of the newest requests for a path."""
        return [request.body for request in self._server._control._history if request.path == path]

    async def fault(self, **fault: Any) -> None:
        async with self._http.post(self.url + "/_sim/fault", json=fault) as answer:
            assert answer.status == 200

    async def generate(self, model: str, **body: Any) -> None:
        """Load a model, or unload it with keep_alive 0, as another client would."""
        async with self._http.post(self.url + "/api/generate", json={"model": model, **body}):
            pass


@asynccontextmanager
async def simulated(*options: str) -> AsyncIterator[Engine]:
    """Run a simulator on a free port, with `options` as on its command line."""
    connections: set[ClientConnection] = set()
    server = OllamaServer(parse_as(OllamaSettings, options), connections)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: OllamaConnection(server, connections), "127.0.0.1", 0
    )
    port = listener.sockets[0].getsockname()[1]
    try:
        async with aiohttp.ClientSession() as http:
            yield Engine(f"http://127.0.0.1:{port}", server, http)
    finally:
        listener.close()
        for connection in tuple(connections):
            connection.close()
