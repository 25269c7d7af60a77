"""The simulated engine's answers have the shape of a real Ollama's, recorded byte by byte."""

import asyncio
import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT.parent / "shared" / "data" / "ollama"

EXCEPTIONS = {
    "native_chat_images_bad_base64": "images are ignored: the simulator has no eyes to refuse them",
    "native_chat_images_unsupported": "images are ignored",
    "native_generate_images_unsupported": "images are ignored",
    "openai_chat_image_data": "images are ignored",
    "openai_audio_transcriptions": "there is no audio",
}
# Parts of names: how Go reads a body that no client of ours would send.
UNREAD = {
    "_key_case": "keys are read as they are spelt",
    "_trailing_garbage": "nothing may follow the JSON",
    "_zstd_body": "there is no zstd",
    "_deep": "there is no limit of depth",
    "_body_40mb": "the body is not in the recording",
    "_trailing_slash": "there are no redirects",
}
# What happened to Ollama, and the fault that does it to the simulator.
FAULTS: dict[str, dict[str, Any]] = {
    "trouble_engine_killed_": {"kind": "error_line", "after_tokens": 6},
    "trouble_token_repeat_": {"kind": "unfinished"},
    "trouble_busy_": {
        "kind": "refuse",
        "status": 503,
        "error": "server busy, please try again.  maximum pending requests exceeded",
    },
}
SERVED = r"(error_)?(native|openai|anthropic)_|trouble_(engine_killed_(?!idle)|token_repeat_|busy_)"

OPTIONS = (
    "--models=smollm2:135m,smollm2-tools,smollm2-embed",
    "--tools-models=smollm2-tools",
    "--thinking-models=smollm2-tools",
    "--embed-models=smollm2-embed",
    "--context-length=2048",
    "--embedding-dim=576",
    "--answer-tokens=16",
)

FOX = "The quick brown fox jumps over the lazy dog. "
LONG_MESSAGE = {"messages": [{"role": "user", "content": FOX * 260}]}
LONG_HISTORY = {
    "messages": [
        {"role": "assistant" if turn % 2 else "user", "content": FOX * (10 if turn % 2 else 30)}
        for turn in range(19)
    ]
}
FEW = {"options": {"num_predict": 4}}
# Long bodies are told in the recordings but not written out.
LONG = {
    "native_chat_long_history": {**LONG_HISTORY, "stream": False, **FEW},
    "native_chat_long_history_stream_truncate_false": {**LONG_HISTORY, "truncate": False},
    "native_chat_long_one_message": {**LONG_MESSAGE, "stream": False, **FEW},
    "native_chat_long_truncate_false": {**LONG_MESSAGE, "stream": False, "truncate": False},
    "native_embed_long_truncate_false": {"input": FOX * 260, "truncate": False},
    "native_generate_long": {"prompt": FOX * 260, "stream": False, **FEW},
    "native_generate_long_truncate_false": {
        "prompt": FOX * 260,
        "stream": False,
        "truncate": False,
    },
    "openai_chat_long_prompt": {**LONG_MESSAGE, "max_tokens": 3},
    "anthropic_long_prompt": {**LONG_MESSAGE, "max_tokens": 6},
    "anthropic_long_prompt_stream": {**LONG_MESSAGE, "max_tokens": 6, "stream": True},
}


class Reply(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    chunks: list[str]  # the HTTP chunks, or the whole body


def recorded_names() -> list[str]:
    paths = sorted(RECORDINGS.glob("*.json"))
    return [path.stem for path in paths if re.match(SERVED, path.stem)]


def reason_to_skip(name: str) -> str | None:
    parts = (reason for part, reason in UNREAD.items() if name.endswith(part))
    return EXCEPTIONS.get(name) or next(parts, None)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    command = [sys.executable, "-m", "tests.support.ollama_simulator", *OPTIONS]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield int(process.stdout.readline().rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


async def ask(port: int, method: str, path: str, body: bytes) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return await read(reader, method)
    finally:
        writer.close()
        await writer.wait_closed()


async def read(reader: asyncio.StreamReader, method: str) -> Reply:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    fields = {name.lower(): value for name, value in headers}
    if "transfer-encoding" in fields:
        chunks = [chunk async for chunk in read_chunks(reader)]
    else:
        size = 0 if method == "HEAD" else int(fields.get("content-length", 0))
        chunks = [(await reader.readexactly(size)).decode()] if size else []
    return Reply(int(first.split()[1]), headers, chunks)


async def read_chunks(reader: asyncio.StreamReader) -> Any:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size)).decode()
        await reader.readexactly(2)


def load(name: str) -> tuple[dict[str, Any], Reply, bool]:
    """The recorded request and reply, and whether the body was shortened."""
    recording = json.loads((RECORDINGS / f"{name}.json").read_text())
    reply = recording["response"]
    headers = [(key, value) for key, value in reply["headers"]]
    chunks = [chunk["data"] for chunk in reply["chunks"]]
    return recording["request"], Reply(reply["status"], headers, chunks), "note" in reply


def body_of(name: str, request: dict[str, Any]) -> bytes:
    if "body_b64" in request:
        return base64.b64decode(request["body_b64"])
    if name not in LONG:
        return str(request.get("body") or "").encode()
    model = "smollm2-embed" if "embed" in name else "smollm2:135m"
    return json.dumps({"model": model, **LONG[name]}).encode()


def shape(value: Any) -> Any:
    """Keys in their order and types; all of a list's different shapes."""
    if isinstance(value, dict):
        return [(key, shape(member)) for key, member in value.items()]
    if isinstance(value, list):
        shapes = [shape(element) for element in value]
        return ("list", [kind for at, kind in enumerate(shapes) if kind not in shapes[:at]])
    if isinstance(value, bool) or value is None:
        return value
    return "text" if isinstance(value, str) else "number"


def events(chunk: str) -> list[Any]:
    """A chunk's lines: JSON by its shape, numbers in errors masked, all else as it is."""
    return [line_shape(line) for line in re.split(r"(?<=\n)", chunk) if line]


def line_shape(line: str) -> Any:
    label, brace, data = line.partition("{")
    if not brace:
        return line
    end = "\n" * (len(line) - len(line.rstrip("\n")))
    value = json.loads(brace + data)
    if value.get("error"):
        value = re.sub(r'\d+|"req_\w+"', "N", json.dumps(value))
        return label, value, end
    return label, shape(value), end


def framing(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Names in their order, with the values that don't vary."""
    varying = ("Date", "Content-Length")
    return [(name, "" if name in varying else value) for name, value in headers]


def course(chunks: list[str], shortened: bool) -> list[Any]:
    """The shapes of the chunks; equal ones that follow each other are one."""
    if shortened:  # and so written anew, without the end of the line
        chunks = [chunk.rstrip("\n") for chunk in chunks]
    return [chunk_shape for chunk_shape, _ in groupby(map(events, chunks))]


async def prepare(name: str, port: int) -> None:
    await prepare_models(name, port)
    for part, fault in FAULTS.items():
        if name.startswith(part):
            await ask(port, "POST", "/_sim/fault", json.dumps(fault).encode())


async def prepare_models(name: str, port: int) -> None:
    """What /api/ps lists depends on what was loaded before."""
    if not name.startswith("native_ps_"):
        return
    for model in ("smollm2:135m", "smollm2-tools", "smollm2-embed"):
        body = {"model": model, "keep_alive": 0}
        await ask(port, "POST", "/api/generate", json.dumps(body).encode())
    if name in ("native_ps_loaded", "native_ps_embed", "native_ps_expiring"):
        await ask(port, "POST", "/api/generate", b'{"model":"smollm2:135m"}')


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"no recordings in {RECORDINGS}")
@pytest.mark.parametrize("name", recorded_names())
async def test_answers_as_recorded(name: str, port: int) -> None:
    """Status, headers, framing, keys, types and the course of a stream are those of Ollama."""
    if reason := reason_to_skip(name):
        pytest.skip(reason)
    request, expected, shortened = load(name)
    await prepare(name, port)
    reply = await ask(port, request["method"], request["path"], body_of(name, request))
    assert reply.status == expected.status
    assert framing(reply.headers) == framing(expected.headers)
    assert course(reply.chunks, shortened) == course(expected.chunks, shortened)
