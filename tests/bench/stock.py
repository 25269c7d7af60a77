"""The stock way: a first version with FastAPI, httpx and Ray Serve, on default flags."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from ray import serve
from ray.serve import Application

api = FastAPI()


@serve.deployment(max_ongoing_requests=1000)
@serve.ingress(api)
class Proxy:
    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=None, trust_env=False)

    @api.post("/v1/chat/completions")
    async def chat(self, request: Request) -> Response:
        body = await request.json()
        if body.get("stream"):
            return StreamingResponse(self._pieces(body), media_type="text/event-stream")
        answer = await self._client.post("/v1/chat/completions", json=body)
        return JSONResponse(answer.json(), answer.status_code)

    async def _pieces(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for piece in answer.aiter_bytes():
                yield piece


def app(url: str) -> Application:
    return Proxy.bind(url)
