"""Answers that need no engine: models, versions, health, and refusals of model management."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from serve_app.aliases import AliasTarget
from serve_app.api.http import Request, Send, send_body, send_json
from serve_app.api.inference import Dispatcher
from serve_app.api.ollama import MANAGEMENT_REFUSED
from serve_app.api.ollama_cards import running, tag
from serve_app.api.request_trace import RequestTrace
from serve_app.engines.base import ModelCard
from serve_app.errors import Forbidden, NotFound
from serve_app.model_names import ModelNames, short_name

TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


class Listings:
    """Handlers of the routes that list models or report health."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        names: ModelNames,
        aliases: Mapping[str, tuple[AliasTarget, ...]],
    ) -> None:
        self._dispatcher = dispatcher
        self._names = names
        self._aliases = aliases

    def _cards(self, trace: RequestTrace) -> list[ModelCard]:
        """Return the cards of the models and aliases that the caller may ask for."""
        cards = [*self._dispatcher.cards(), *self._alias_cards()]
        return [card for card in cards if trace.caller.may_use(card.name)]

    def _alias_cards(self) -> Iterator[ModelCard]:
        """Yield a card for every alias: that of its first model."""
        cards = {card.name: card for card in self._dispatcher.cards()}
        for alias, targets in self._aliases.items():
            if card := cards.get(short_name(targets[0].model)):
                yield replace(card, name=alias)

    async def root(self, request: Request, send: Send, trace: RequestTrace) -> None:
        trace.note_status(200)
        await send_body(send, 200, b"Ollama is running", TEXT)

    async def version(self, request: Request, send: Send, trace: RequestTrace) -> None:
        await _ok(send, trace, {"version": self._dispatcher.version()})

    async def tags(self, request: Request, send: Send, trace: RequestTrace) -> None:
        await _ok(send, trace, {"models": [tag(card) for card in self._cards(trace)]})

    async def running(self, request: Request, send: Send, trace: RequestTrace) -> None:
        cards = (card for card in self._dispatcher.cards() if trace.caller.may_use(card.name))
        loaded = [card for card in cards if card.loaded]
        await _ok(send, trace, {"models": [running(card) for card in loaded]})

    async def models(self, request: Request, send: Send, trace: RequestTrace) -> None:
        data = [_openai_model(card) for card in self._cards(trace)]
        await _ok(send, trace, {"object": "list", "data": data})

    async def model(self, request: Request, send: Send, trace: RequestTrace) -> None:
        model_id = request.path.removeprefix("/v1/models/")
        name = self._names.find(model_id)
        card = next((card for card in self._cards(trace) if card.name == name), None)
        if card is None:
            raise NotFound(f"model '{short_name(model_id)[:512]}' not found")
        await _ok(send, trace, _openai_model(card))

    async def healthz(self, request: Request, send: Send, trace: RequestTrace) -> None:
        await _ok(send, trace, {"status": "ok"})

    async def readyz(self, request: Request, send: Send, trace: RequestTrace) -> None:
        problem = await self._dispatcher.problem()
        status = 503 if problem else 200
        trace.note_status(status)
        await send_json(send, {"status": problem or "ready"}, status)


async def refuse_management(request: Request, send: Send, trace: RequestTrace) -> None:
    raise Forbidden(MANAGEMENT_REFUSED)


async def _ok(send: Send, trace: RequestTrace, value: object) -> None:
    trace.note_status(200)
    await send_json(send, value)


def _openai_model(card: ModelCard) -> dict[str, object]:
    created = int(datetime.fromisoformat(card.modified_at).timestamp())
    owner = card.name.rpartition("/")[0].rpartition("/")[2] or "library"
    return {"id": card.name, "object": "model", "created": created, "owned_by": owner}
