"""Serves OpenAI's chat and text completions as bytes, with prompts shortened where they must be."""

import asyncio
from dataclasses import replace

import orjson

from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.engines.llamacpp.client import Json, LlamaServer, PromptTooLong
from serve_app.engines.llamacpp.openai.prefill import only_new
from serve_app.engines.llamacpp.openai.requests import checked
from serve_app.engines.llamacpp.prompts.fitting import can_shorten, clip, fit_prompt
from serve_app.engines.llamacpp.prompts.window import ContextWindow
from serve_app.engines.llamacpp.refusals import refused
from serve_app.engines.upstream import Upstream

PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})


class CompletionRoutes:
    """Serves `PATHS` with the llama.cpp server behind `upstream` and `llama`."""

    def __init__(
        self, llama: LlamaServer, upstream: Upstream, window: ContextWindow, card: ModelCard
    ) -> None:
        self._card = card
        self._llama = llama
        self._upstream = upstream
        self._window = window

    async def send(self, call: Call) -> Answer:
        """Return the answer to `call`, with status 200.

        Raises Refusal, PromptTooLong where the prompt can't or must not be shortened, and the
        errors of base.Engine.send.
        """
        # In a thread, because megabytes of JSON and large schemas would block other requests.
        call = await asyncio.to_thread(checked, call, self._card)
        if len(call.body) > self._window.max_bytes:
            call = await self._clipped(call)
        try:
            return await self._answer(call)
        except PromptTooLong as too_long:
            request = orjson.loads(call.body)
            if not self._window.shortens or not can_shorten(request):
                raise
            shorter = await fit_prompt(self._llama, request, too_long)
        return await self._answer(_with(call, shorter))

    async def _clipped(self, call: Call) -> Call:
        # In a thread, because megabytes of JSON would block other requests.
        request = await asyncio.to_thread(orjson.loads, call.body)
        if not self._window.shortens or not can_shorten(request):
            await self._window.check_body(call.body)
            return call
        return _with(call, await asyncio.to_thread(clip, request, self._window))

    async def _answer(self, call: Call) -> Answer:
        answer = await self._upstream.send(call)
        if answer.status == 200:
            return only_new(call, answer)
        raise await refused(answer)


def _with(call: Call, request: Json) -> Call:
    return replace(call, body=orjson.dumps(request))
