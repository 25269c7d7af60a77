"""The OpenAPI description of the routes, and a page that shows it without the internet."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from swagger_ui_bundle import swagger_ui_path

from serve_app.api.app import Handler, Route, dialect_of
from serve_app.api.http import JSON, Request, Send, send_body
from serve_app.api.request_trace import RequestTrace

_ASSETS = {"swagger-ui.css": b"text/css", "swagger-ui-bundle.js": b"text/javascript"}

_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>scalable-llm-inference</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({url: "openapi.json", dom_id: "#docs", deepLinking: true, docExpansion: "list"});
</script>
</body>
</html>
"""

_ABOUT = (
    "One endpoint in front of a fleet of Ollama servers. It speaks the OpenAI, the Ollama and the "
    "Anthropic API; streamed answers come as server-sent events, Ollama's own as NDJSON."
)


def documentation(routes: list[Route], models: Iterable[str]) -> list[Route]:
    """Return the routes that describe `routes`, with `models` as examples."""
    html = [(b"content-type", b"text/html; charset=utf-8")]
    return [
        Route("GET", "/docs", _static(_PAGE, html), "This page", hidden=True),
        Route("GET", "/openapi.json", _Description(routes, list(models)), "This API", hidden=True),
        *(
            Route("GET", f"/docs/{name}", _asset(name, kind), name, hidden=True)
            for name, kind in _ASSETS.items()
        ),
    ]


class _Description:
    """Answers with the description of the routes, with the models that the caller may use."""

    def __init__(self, routes: list[Route], models: list[str]) -> None:
        self._routes = routes
        self._models = models
        self._complete = orjson.dumps(describe(routes, models))

    async def __call__(self, request: Request, send: Send, trace: RequestTrace) -> None:
        body, may_use = self._complete, trace.caller.may_use
        models = [name for name in self._models if may_use(name)]
        if models != self._models:
            body = orjson.dumps(describe(self._routes, models))
        trace.note_status(200)
        await send_body(send, 200, body, [(b"content-type", JSON)])


def _static(body: bytes, headers: list[tuple[bytes, bytes]]) -> Handler:
    return partial(_send_static, body, headers)


def _asset(name: str, kind: bytes) -> Handler:
    body = (Path(swagger_ui_path) / name).read_bytes()
    cache = (b"cache-control", b"public, max-age=86400")
    return _static(body, [(b"content-type", kind), cache])


async def _send_static(
    body: bytes,
    headers: list[tuple[bytes, bytes]],
    request: Request,
    send: Send,
    trace: RequestTrace,
) -> None:
    trace.note_status(200)
    await send_body(send, 200, body, headers)


_TITLES = {"openai": "OpenAI", "ollama": "Ollama", "anthropic": "Anthropic"}


def describe(routes: list[Route], models: list[str]) -> dict[str, Any]:
    """Return the OpenAPI 3.0 document of `routes`."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if not route.hidden:
            path = route.path.replace("/*", "/{id}")
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, models)
    return {
        "openapi": "3.0.3",
        "info": {"title": "scalable-llm-inference", "version": "1", "description": _ABOUT},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            }
        },
        "paths": paths,
    }


def _operation(route: Route, models: list[str]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method} {route.path}",
        "tags": ["Operations" if route.open else _TITLES[dialect_of(route.path).name]],
        "security": [] if route.open else [{}, {"bearer": []}, {"key": []}],
        "responses": _responses(route),
    }
    if route.path.endswith("/*"):
        operation["parameters"] = [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    if route.example is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(route.example, models)}},
        }
    return operation


def _schema(example: dict[str, Any], models: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["model"],
        "properties": {"model": {"type": "string", "enum": models}},
        "additionalProperties": True,
        "example": {"model": next(iter(models), ""), **example},
    }


_REFUSALS = {
    "400": "The request can't be understood",
    "401": "A key is needed",
    "404": "No such model",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "502": "The engine broke off",
    "503": "Slots and queue are full, or the engine is down: try again after Retry-After",
    "504": "The engine is too slow",
}


def _responses(route: Route) -> dict[str, Any]:
    refusals = _REFUSALS if route.example is not None else {}
    return {code: {"description": text} for code, text in ({"200": "OK"} | refusals).items()}
