"""What llama.cpp's server answers, as Python values: JSON bodies and streams of events."""

from collections.abc import AsyncIterator
from typing import Any

import orjson

from serve_app.engines.http1 import HttpClient, Response
from serve_app.errors import ContextLengthExceeded, EngineDown, EngineLost

Json = dict[str, Any]

# It closes a connection after a stream without a word; see upstream.Upstream.
_HEADERS = {"Content-Type": "application/json", "Connection": "close"}
_DONE = b"[DONE]"


class Refusal(Exception):
    """What the caller is told in place of an answer.

    `by_engine`: in llama.cpp's own words, its whole JSON body as one text.
    """

    def __init__(self, status: int, message: str, *, by_engine: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.by_engine = by_engine


class PromptTooLong(Refusal):
    """A prompt with more `tokens` than a slot holds, its `context`.

    `at_least`: nobody counted the tokens to their end.
    """

    def __init__(self, message: str, tokens: int, context: int, at_least: bool = False) -> None:
        super().__init__(400, message, by_engine=True)
        self.tokens = tokens
        self.context = context
        self.at_least = at_least

    @property
    def error(self) -> ContextLengthExceeded:
        """The same for a dialect other than Ollama's."""
        return ContextLengthExceeded(self.tokens, self.context, self.at_least)


class LlamaServer:
    """Asks the llama.cpp server at `url`.

    Every method raises EngineDown (not reachable, or still loading), EngineLost (the connection
    broke) and Refusal (llama.cpp refused the request).
    """

    def __init__(self, http: HttpClient, url: str, key: str = "") -> None:
        self._http = http
        self._headers = {**_HEADERS, "Authorization": f"Bearer {key}"}
        self._url = url

    async def ask(self, path: str, body: Json) -> Json:
        response = await self._post(path, body)
        try:
            answer: Json = orjson.loads(await response.read())
        except orjson.JSONDecodeError as exc:
            raise EngineLost("the engine's answer can't be read") from exc
        finally:
            response.close()
        return answer

    async def stream(self, path: str, body: Json) -> "Events":
        return Events(await self._post(path, {**body, "stream": True}))

    async def apply_template(self, request: Json) -> str:
        """The prompt that a chat request comes to."""
        return str((await self.ask("/apply-template", request))["prompt"])

    async def tokenize(self, text: str) -> list[int]:
        body = {"content": text, "add_special": True, "parse_special": True}
        tokens: list[int] = (await self.ask("/tokenize", body))["tokens"]
        return tokens

    async def detokenize(self, tokens: list[int]) -> str:
        return str((await self.ask("/detokenize", {"tokens": tokens}))["content"])

    async def count(self, request: Json) -> int:
        """The tokens of a chat request's prompt, from the template to the tools."""
        return int((await self.ask("/v1/chat/completions/input_tokens", request))["input_tokens"])

    async def _post(self, path: str, body: Json) -> Response:
        """A response with status 200, its body unread."""
        response = await self._http.post(self._url, path, orjson.dumps(body), self._headers)
        if response.status == 200:
            return response
        try:
            text = (await response.read()).decode("utf-8", "replace")
        finally:
            response.close()
        raise read_refusal(response.status, text)


class Events:
    """The server-sent events of one answer. Whoever holds it must `close` it, on every path."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def close(self) -> None:
        """Closing before the end makes llama.cpp stop generating."""
        self._response.close()

    async def batches(self) -> AsyncIterator[list[Json]]:
        """The events of each read, at least one, with what an event lacks joined to the next read.

        Raises EngineLost when the connection breaks or llama.cpp reports an error.
        """
        rest = b""
        while piece := await self._response.piece():
            *lines, rest = (rest + piece).split(b"\n")
            if events := [event for line in lines if (event := _event(line)) is not None]:
                yield events


def _event(line: bytes) -> Json | None:
    """The JSON of one `data:` line; None for anything else."""
    field, _, value = line.partition(b":")
    value = value.strip()
    if field not in (b"data", b"error") or value == _DONE:
        return None
    try:
        event: Json = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise EngineLost("the engine's answer can't be read") from exc
    error = event if field == b"error" else event.get("error")
    if error:
        raise EngineLost(f"the engine failed: {_message(error)}")
    return event


def read_refusal(status: int, text: str) -> Exception:
    """What an answer that is not 200 means: EngineLost, EngineDown, PromptTooLong or Refusal."""
    try:
        error = orjson.loads(text)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return EngineLost(f"the engine answered {status} without saying why")
    if status == 503:
        return EngineDown("the engine is still loading its model")
    if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
        return PromptTooLong(text.strip(), int(error["n_prompt_tokens"]), int(error["n_ctx"]))
    return Refusal(status, text.strip(), by_engine=True)


def _message(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)
