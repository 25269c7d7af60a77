"""POST /api/pull and DELETE /api/delete."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

from serve_app.go_json import encode
from serve_app.simulator.bodies import Body
from serve_app.simulator.catalogue import Catalogue, canonical
from serve_app.simulator.failures import ErrorAnswer, native
from serve_app.simulator.wire import HttpResponse
from tests.support.ollama_simulator.settings import OllamaSettings

_STEPS = 10


class Puller:
    def __init__(self, settings: OllamaSettings, catalogue: Catalogue) -> None:
        self._settings = settings
        self._catalogue = catalogue

    async def pull(self, body: Body, response: HttpResponse) -> None:
        name = canonical(_name(body))
        if body.get("stream") is False:
            await self._pull_whole(name, response)
        else:
            await self._pull_streamed(name, response)

    async def delete(self, body: Body, response: HttpResponse) -> None:
        model = self._catalogue.find(_name(body))
        if model is None:
            raise ErrorAnswer(404, f"model '{_name(body)}' not found")
        self._catalogue.remove(model)
        response.whole(b"", "")

    async def _pull_whole(self, name: str, response: HttpResponse) -> None:
        if self._settings.offline:
            response.whole(native(_unreachable(name)), "application/json", status=500)
            return
        async for _ in self._progress(name):
            pass
        response.whole(encode({"status": "success"}))

    async def _pull_streamed(self, name: str, response: HttpResponse) -> None:
        response.begin("application/x-ndjson")
        response.send([encode({"status": "pulling manifest"}) + b"\n"])
        if self._settings.offline:
            response.end([native(_unreachable(name)) + b"\n"])
            return
        async for status in self._progress(name):
            response.send([encode(status) + b"\n"])
        response.end([encode({"status": "success"}) + b"\n"])

    async def _progress(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the statuses between the first and the last, then add the model."""
        total = self._settings.pull_bytes
        digest = sha256(name.encode()).hexdigest()
        layer = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": total}
        yield layer
        for step in range(1, _STEPS + 1):
            await asyncio.sleep(self._settings.pull_s / _STEPS)
            yield {**layer, "completed": total * step // _STEPS}
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self._catalogue.add(name)


def _name(body: Body) -> str:
    return str(body.get("model") or body.get("name") or "")


def _unreachable(name: str) -> str:
    model, _, tag = name.rpartition(":")
    path = model if "/" in model else f"library/{model}"
    host = "registry.ollama.ai"
    return (
        f'pull model manifest: Get "https://{host}/v2/{path}/manifests/{tag}": '
        f"dial tcp: lookup {host}: connect: network is unreachable"
    )
