"""One generation: requested from llama.cpp, read, and written in the caller's dialect."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing

from serve_app.engines.base import Answer, Call
from serve_app.engines.llamacpp.answers import (
    Done,
    RequestTimer,
    Writer,
    json_answer,
    stream_answer,
)
from serve_app.engines.llamacpp.client import EventStream, Json, LlamaServer, PromptTooLong, Refusal
from serve_app.engines.llamacpp.events import ChatReader, Piece, Reader, TextReader, pieces
from serve_app.engines.llamacpp.prompts.fitting import clip, fit_prompt, prompt_bytes
from serve_app.engines.llamacpp.prompts.window import ContextWindow
from serve_app.errors import EngineLost

CHAT, TEXT = "/v1/chat/completions", "/completion"

Tokenize = Callable[[Json, str], Awaitable[list[int]]]  # takes a request and the text of its answer


class Turn:
    """One generation. `tokens` computes the `context` field of the answer, if it has one."""

    def __init__(
        self, llama: LlamaServer, window: ContextWindow, writer: Writer, clock: RequestTimer
    ) -> None:
        self._llama = llama
        self._window = window
        self._writer = writer
        self._clock = clock
        self.tokens: Tokenize | None = None

    async def answer(self, call: Call, body: Json, path: str, request: Json) -> Answer:
        top = body.get("top_logprobs") or 0
        reader = ChatReader(top) if path == CHAT else TextReader(top)
        self._clock.loaded()
        events, request = await self._ask(path, request, body.get("truncate") is not False)
        if not call.stream:
            with closing(events):
                return json_answer(await self._complete(events, reader, request))
        stream = self._stream(events, reader, request)
        try:
            return stream_answer(self._writer.headers, await anext(stream), stream, events)
        except BaseException:
            events.close()
            raise

    async def _ask(self, path: str, request: Json, truncate: bool) -> tuple[EventStream, Json]:
        truncate = truncate and self._window.shortens
        if truncate:
            request = clip(request, self._window)
        else:
            self._window.check(prompt_bytes(request, self._window))
        try:
            return await self._llama.stream(path, request), request
        except PromptTooLong as too_long:
            if not truncate:
                raise
            shorter = await fit_prompt(self._llama, request, too_long)
        return await self._llama.stream(path, shorter), shorter

    async def _stream(
        self, events: EventStream, reader: Reader, request: Json
    ) -> AsyncIterator[bytes]:
        """Yield the parts of every read, then the end. The beginning goes with the first part."""
        text, begun = "", False
        async for group in pieces(events, reader):
            text += "".join(piece.text for piece in group)
            written = b"" if begun else self._writer.begin(reader.progress)
            begun = True
            if written := written + self._writer.parts(group):
                yield written
        last = self._writer.end(await self._done(text, reader, request))
        yield last if begun else self._writer.begin(reader.progress) + last

    async def _complete(self, events: EventStream, reader: Reader, request: Json) -> Json:
        answer = Piece()
        async for group in pieces(events, reader):
            for piece in group:
                answer.add(piece)
        return self._writer.complete(answer, await self._done(answer.text, reader, request))

    async def _done(self, text: str, reader: Reader, request: Json) -> Done:
        assert reader.end is not None  # otherwise `pieces` would have raised
        try:
            context = await self.tokens(request, text) if self.tokens else []
        except Refusal as exc:
            raise EngineLost(f"the engine failed: {exc}") from exc
        return Done(reader.end, self._clock.metrics(reader.end), context)
