"""One generation: asked of llama.cpp, read, and written as Ollama's."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing

from serve_app.engines.base import Answer, Call
from serve_app.engines.llamacpp.answers import Clock, Voice, json_answer, stream_answer
from serve_app.engines.llamacpp.client import Events, Json, LlamaServer, PromptTooLong, Refusal
from serve_app.engines.llamacpp.events import ChatReader, Piece, Reader, TextReader, pieces
from serve_app.engines.llamacpp.fitting import clip, fit, prompt_bytes
from serve_app.engines.llamacpp.window import Window
from serve_app.errors import EngineLost
from serve_app.gotext import encode

CHAT, TEXT = "/v1/chat/completions", "/completion"

Tokens = Callable[[Json, str], Awaitable[list[int]]]  # of a request and the answer to it


class Turn:
    """One generation: asked, read and written. `tokens` gives what `context` shall be, if any."""

    def __init__(self, llama: LlamaServer, window: Window, voice: Voice, clock: Clock) -> None:
        self._llama = llama
        self._window = window
        self._voice = voice
        self._clock = clock
        self.tokens: Tokens | None = None

    async def answer(self, call: Call, body: Json, path: str, request: Json) -> Answer:
        top = body.get("top_logprobs") or 0
        reader = ChatReader(top) if path == CHAT else TextReader(top)
        self._clock.loaded()
        events, request = await self._ask(path, request, body.get("truncate") is not False)
        if not call.stream:
            with closing(events):
                return json_answer(await self._whole(events, reader, request))
        lines = self._lines(events, reader, request)
        try:
            return stream_answer(await anext(lines), lines, events)
        except BaseException:
            events.close()
            raise

    async def _ask(self, path: str, request: Json, truncate: bool) -> tuple[Events, Json]:
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
            shorter = await fit(self._llama, request, too_long)
        return await self._llama.stream(path, shorter), shorter

    async def _lines(self, events: Events, reader: Reader, request: Json) -> AsyncIterator[bytes]:
        """NDJSON: what each read brought, then the line that ends the answer."""
        text = ""
        async for some in pieces(events, reader):
            text += "".join(piece.text for piece in some)
            yield b"".join(encode(self._voice.part(piece)) + b"\n" for piece in some)
        yield encode(await self._last(Piece(), text, reader, request)) + b"\n"

    async def _whole(self, events: Events, reader: Reader, request: Json) -> Json:
        whole = Piece()
        async for some in pieces(events, reader):
            for piece in some:
                whole.add(piece)
        return await self._last(whole, whole.text, reader, request)

    async def _last(self, piece: Piece, text: str, reader: Reader, request: Json) -> Json:
        assert reader.end is not None  # or `pieces` would have raised
        try:
            context = await self.tokens(request, text) if self.tokens else []
        except Refusal as exc:
            raise EngineLost(f"the engine failed: {exc}") from exc
        return self._voice.last(piece, reader.end.reason, self._clock.metrics(reader.end), context)
