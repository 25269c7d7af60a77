"""Routes of OpenAI and Anthropic that llama.cpp does not serve as their clients expect.

They are translated onto its chat route, as Ollama's native routes are.
"""

import asyncio
from collections.abc import Callable

import orjson

from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.engines.llamacpp import messages, responses
from serve_app.engines.llamacpp.answers import RequestTimer, Writer
from serve_app.engines.llamacpp.client import Json, LlamaServer
from serve_app.engines.llamacpp.prompts.window import ContextWindow
from serve_app.engines.llamacpp.turn import CHAT, Turn

_Read = Callable[[Json, str, ModelCard], Json]
_Write = Callable[[str, Json], Writer]

_ROUTES: dict[str, tuple[_Read, _Write]] = {
    "/v1/responses": (responses.chat_request, responses.ResponseWriter),
    "/v1/messages": (messages.chat_request, messages.MessageWriter),
}
PATHS = frozenset(_ROUTES)


class TranslatedRoutes:
    """Serves `PATHS` for the model of `card` with `llama`. `window`: the capacity of a slot."""

    def __init__(self, llama: LlamaServer, card: ModelCard, window: ContextWindow) -> None:
        self._llama = llama
        self._card = card
        self._window = window

    async def send(self, call: Call) -> Answer:
        """Return the answer to `call` with its first chunk.

        Raises Refusal for a request that can't be served, EngineDown and EngineLost.
        """
        clock = RequestTimer()
        read, write = _ROUTES[call.path]
        body: Json = orjson.loads(call.body)
        # In a thread, because large schemas would block other requests.
        request = await asyncio.to_thread(read, body, call.model, self._card)
        turn = Turn(self._llama, self._window, write(call.model, body), clock)
        return await turn.answer(call, body, CHAT, request)
