"""Requests to llama.cpp's server, and its answers: JSON bodies and streams of events."""

from collections.abc import AsyncIterator
from typing import Any

import orjson

from serve_app.engines.http1 import HttpClient
from serve_app.engines.http1_connection import Response
from serve_app.errors import ContextLengthExceeded, EngineDown, EngineLost

Json = dict[str, Any]

# It closes a connection after a stream without announcing it; see upstream.Upstream.
_HEADERS = (("Content-Type", "application/json"), ("Connection", "close"))
_DONE = b"[DONE]"


class Refusal(Exception):
    """An error that the caller gets in place of an answer.

    `by_engine`: the message is the complete JSON body of llama.cpp's own error.
    """

    def __init__(self, status: int, message: str, *, by_engine: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.by_engine = by_engine


class PromptTooLong(Refusal):
    """A prompt has more `tokens` than a slot's `context`.

    `at_least`: the tokens were not counted to their end.
    """

    def __init__(self, message: str, tokens: int, context: int, at_least: bool = False) -> None:
        super().__init__(400, message, by_engine=True)
        self.tokens = tokens
        self.context = context
        self.at_least = at_least

    @property
    def error(self) -> ContextLengthExceeded:
        """The same error for dialects other than Ollama's."""
        return ContextLengthExceeded(self.tokens, self.context, self.at_least)


class LlamaServer:
    """Sends requests to the llama.cpp server at `url`.

    Every method raises EngineDown (not reachable, or still loading), EngineLost (the connection
    broke) and Refusal (llama.cpp refused the request).
    """

    def __init__(self, http: HttpClient, url: str, key: str = "") -> None:
        self._http = http
        self._headers = (*_HEADERS, ("Authorization", f"Bearer {key}"))
        self._url = url

    async def ask(self, path: str, body: Json) -> Json:
        response = await self._post(path, body)
        try:
            answer: Json = orjson.loads(await response.read())
        except orjson.JSONDecodeError as exc:
            raise EngineLost("the engine's answer is not JSON") from exc
        finally:
            response.close()
        return answer

    async def stream(self, path: str, body: Json) -> "Events":
        return Events(await self._post(path, {**body, "stream": True}))

    async def apply_template(self, request: Json) -> str:
        """Return the prompt of a chat request."""
        return str((await self.ask("/apply-template", request))["prompt"])

    async def tokenize(self, text: str) -> list[int]:
        body = {"content": text, "add_special": True, "parse_special": True}
        tokens: list[int] = (await self.ask("/tokenize", body))["tokens"]
        return tokens

    async def detokenize(self, tokens: list[int]) -> str:
        return str((await self.ask("/detokenize", {"tokens": tokens}))["content"])

    async def count(self, request: Json) -> int:
        """Count the tokens of a chat request's prompt, with its template and tools."""
        return int((await self.ask("/v1/chat/completions/input_tokens", request))["input_tokens"])

    async def _post(self, path: str, body: Json) -> Response:
        """Return a response with status 200, its body unread."""
        response = await self._http.post(self._url, path, orjson.dumps(body), self._headers)
        if response.status == 200:
            return response
        try:
            text = (await response.read()).decode("utf-8", "replace")
        finally:
            response.close()
        raise read_refusal(response.status, text)


class Events:
    """The server-sent events of one answer. Its owner must `close` it on every path."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def close(self) -> None:
        """Close the connection, which makes llama.cpp stop generating."""
        self._response.close()

    async def batches(self) -> AsyncIterator[list[Json]]:
        """Yield the events of every read that completes at least one.

        Raises EngineLost when the connection breaks or llama.cpp reports an error.
        """
        rest = b""
        while piece := await self._response.piece():
            *lines, rest = (rest + piece).split(b"\n")
            if events := [event for line in lines if (event := _event(line)) is not None]:
                yield events


def _event(line: bytes) -> Json | None:
    """Return the JSON of a `data:` line, None for another line."""
    field, _, value = line.partition(b":")
    value = value.strip()
    if field not in (b"data", b"error") or value == _DONE:
        return None
    try:
        event: Json = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise EngineLost("the engine's answer is not JSON") from exc
    error = event if field == b"error" else event.get("error")
    if error:
        raise EngineLost(f"the engine failed: {_message(error)}")
    return event


def read_refusal(status: int, text: str) -> Exception:
    """Return the exception for an error: EngineLost, EngineDown, PromptTooLong or Refusal."""
    try:
        error = orjson.loads(text)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return EngineLost(f"the engine answered {status} without a reason")
    if status == 503:
        return EngineDown("the engine is still loading its model")
    if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
        return PromptTooLong(text.strip(), int(error["n_prompt_tokens"]), int(error["n_ctx"]))
    return Refusal(status, text.strip(), by_engine=True)


def _message(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)
