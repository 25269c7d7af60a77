"""The models of a running Ollama, loaded and unloaded by name."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import httpx

from serve_app.engines import ollama_api
from serve_app.engines.lifecycle import new_http
from serve_app.errors import EngineDown, EngineLost
from serve_app.model_names import full_name, short_name


class OllamaModels:
    """Loads and unloads models of the Ollama at `url()`; names are as the pool writes them.

    `url` raises EngineDown while there is none.
    """

    def __init__(self, url: Callable[[], str], names: Iterable[str]) -> None:
        self._url = url
        self._names = {full_name(name): short_name(name) for name in names}

    async def loaded(self) -> dict[str, int]:
        """Return the bytes of every loaded model, the pool's or not. Raises EngineError."""
        async with self._http() as http:
            sizes = await ollama_api.loaded(http)
        return {self._names.get(full_name(name), name): size for name, size in sizes.items()}

    async def load(self, name: str) -> None:
        """Load a model; return when it has given a token.

        Raises EngineDown when nothing was sent, EngineStartError when Ollama can't load it,
        EngineLost when it broke off.
        """
        async with self._http() as http:
            await ollama_api.load_model(http, name)

    async def unload(self, name: str) -> None:
        """Unload a model; return when Ollama no longer lists it. Raises EngineError."""
        async with self._http() as http:
            await ollama_api.unload(http, name)

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[httpx.AsyncClient]:
        async with new_http(self._url()) as http:
            try:
                yield http
            except httpx.ConnectError as exc:
                raise EngineDown(f"the engine does not answer: {exc}") from exc
            except httpx.HTTPError as exc:
                raise EngineLost(f"{type(exc).__name__}: {exc}") from exc
