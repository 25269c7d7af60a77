"""Bad input: the caller's dialect, the right status, and nothing reaches the engine."""

import asyncio
from json import dumps
from typing import Any

import pytest

from tests.support.service import Service, Simulator, serving

MESSAGES = [{"role": "user", "content": "hi"}]
VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "hi"},
    "/v1/embeddings": {"input": "hi"},
    "/v1/responses": {"input": "hi"},
    "/api/chat": {"messages": MESSAGES},
    "/api/generate": {"prompt": "hi"},
    "/api/embed": {"input": "hi"},
    "/api/embeddings": {"prompt": "hi"},
    "/api/show": {},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 4},
}
PATHS = list(VALID)


def message(path: str, body: Any) -> str:
    """The sentence of an error body, whose shape is that of the path's dialect."""
    if path.startswith("/api"):
        assert list(body) == ["error"]
        return body["error"]
    if path.startswith("/v1/messages"):
        assert list(body) == ["type", "error", "request_id"]
        assert body["type"] == "error"
        return body["error"]["message"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    return body["error"]["message"]


BROKEN = {
    "empty": b"",
    "not JSON": b"{bad",
    "text after the value": b'{"model":"smollm2:135m"} and more',
    "an array": b"[1,2]",
    "null": b"null",
    "wrong UTF-8": b'{"model":"smollm2:135m","x":"\xff\xfe"}',
    "nested too deep": b'{"model":"smollm2:135m","messages":' + b"[" * 2000 + b"]" * 2000 + b"}",
    "no model": b"{}",
    "a model that is no string": b'{"model":5}',
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
async def test_broken_bodies_get_400(
    service: Service, simulator: Simulator, path: str, body: bytes
) -> None:
    """What can't be understood is refused in the caller's dialect and never reaches the engine."""
    answer = await service.post(path, content=body)
    assert answer.status_code == 400
    assert message(path, answer.json())
    assert simulator.reached == {}
    assert service.noted.last.outcome == "client_error"


MANY = {
    "values in a field without a meaning": b'"x":[' + b",".join([b"{}"] * 200_001) + b"]",
    "names": b",".join([b'"k%d":1' % number for number in range(200_001)]),
    "messages": b'"messages":[' + b",".join([b'{"role":"user","content":"x"}'] * 100_000) + b"]",
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
@pytest.mark.parametrize("fields", MANY.values(), ids=MANY)
async def test_bodies_of_too_many_values_are_not_decoded(
    service: Service, simulator: Simulator, path: str, fields: bytes
) -> None:
    """Decoding them would hold up all other requests."""
    answer = await service.post(path, content=b'{"model":"smollm2:135m",' + fields + b"}")
    assert answer.status_code == 400
    assert "more than 200000 JSON values" in message(path, answer.json())
    assert simulator.reached == {}


async def test_a_long_text_is_one_value(service: Service, simulator: Simulator) -> None:
    """Whatever its characters are."""
    text = '{"a": [1, 2, 3]}, \\" \\\\' * 100_000
    body = {"model": "smollm2:135m", "prompt": text, "max_tokens": 1}
    assert (await service.post("/v1/completions", json=body)).status_code == 200
    assert simulator.reached == {"/v1/completions": 1}


@pytest.mark.parametrize("depth", [254, 1010, 1100])
@pytest.mark.parametrize(
    ("path", "key"),
    [
        *(("/v1/chat/completions", key) for key in ("response_format", "tools", "messages")),
        *(("/v1/completions", "prompt"), ("/v1/embeddings", "input")),
        *(("/v1/responses", key) for key in ("text", "input", "tools")),
        *(("/api/chat", key) for key in ("format", "tools", "options", "messages")),
        *(("/api/generate", "format"), ("/api/embed", "input"), ("/api/show", "options")),
        *(("/v1/messages", key) for key in ("messages", "system", "tools")),
    ],
)
async def test_deep_values_get_400(
    service: Service, simulator: Simulator, path: str, key: str, depth: int
) -> None:
    """The bound on depth comes before everything that walks through a value."""
    valid = dumps({**VALID[path], "model": "smollm2:135m"})[:-1].encode()
    deep = b"[" * depth + b"]" * depth
    answer = await service.post(path, content=valid + f',"{key}":'.encode() + deep + b"}")
    assert answer.status_code == 400
    assert "deeper than 254 levels" in message(path, answer.json())
    assert simulator.reached == {}
    assert service.noted.last.outcome == "client_error"


@pytest.mark.parametrize("path", PATHS)
async def test_unknown_model_gets_404(service: Service, simulator: Simulator, path: str) -> None:
    """A model that is not configured is named in a 404 and never reaches the engine."""
    answer = await service.post(path, json={**VALID[path], "model": "nope"})
    assert answer.status_code == 404
    assert "nope" in message(path, answer.json())
    assert simulator.reached == {}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages"])
async def test_declared_oversize_gets_413_unread(simulator: Simulator, path: str) -> None:
    """A body whose declared length is over the bound is refused before a byte of it is read."""
    async with serving(simulator, max_body_mib=0.001) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x.local\r\n".encode())
        writer.write(b"Content-Length: 99999999\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert b" 413 " in head.splitlines()[0]
    assert simulator.reached == {}


async def test_chunked_oversize_gets_413(simulator: Simulator) -> None:
    """A body of unknown length is refused as soon as it has passed the bound."""
    async with serving(simulator, max_body_mib=0.001) as service:
        sent = 0

        async def endless() -> Any:
            nonlocal sent
            while sent < 1000:
                sent += 1
                yield b"x" * 1024

        answer = await service.post("/api/chat", content=endless())
        assert answer.status_code == 413
    assert simulator.reached == {}


async def test_trickling_body_gets_408(simulator: Simulator) -> None:
    """A body that is not whole within its bound is refused."""
    async with serving(simulator, body_timeout_s=0.1) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert b" 408 " in head.splitlines()[0]
    assert simulator.reached == {}


async def test_compressed_body_gets_400(service: Service, simulator: Simulator) -> None:
    """A compressed body is refused: only what we have read ourselves goes on."""
    answer = await service.post(
        "/v1/chat/completions", content=b"\x28\xb5", headers={"content-encoding": "zstd"}
    )
    assert answer.status_code == 400
    assert simulator.reached == {}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": "many"}),
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": "yes"}),
        ("/api/chat", {"messages": MESSAGES, "options": {"num_predict": 1.5}}),
        ("/api/chat", {"messages": MESSAGES, "options": [1]}),
        ("/v1/chat/completions", {"messages": MESSAGES, "top_logprobs": 1000}),
        ("/v1/completions", {"prompt": "a", "logprobs": 1000}),
        ("/api/chat", {"messages": MESSAGES, "top_logprobs": 1000}),
        ("/v1/chat/completions", {"messages": MESSAGES, "response_format": [[]] * 600}),
        ("/api/chat", {"messages": MESSAGES, "format": {str(n): {} for n in range(600)}}),
        ("/v1/messages", {"messages": MESSAGES}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 0}),
        ("/v1/messages", {"messages": [], "max_tokens": 3}),
    ],
)
async def test_impossible_fields_get_400(
    service: Service, simulator: Simulator, path: str, body: dict[str, Any]
) -> None:
    """Fields that would escape our bounds, or mean nothing, are refused before the engine."""
    answer = await service.post(path, json={**body, "model": "smollm2:135m"})
    assert answer.status_code == 400
    assert message(path, answer.json())
    assert simulator.reached == {}
