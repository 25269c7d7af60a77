"""One request on its way to a replica: the gateway's estimates, and the engine's statistics."""

from dataclasses import dataclass
from typing import NamedTuple

from serve_app.dispatch.engine_cache import CacheUse
from serve_app.dispatch.prefixes import EMPTY, Chain


class PromptView(NamedTuple):
    """The input of one request's placement. `text_bytes`: of its prompt, as far as known.

    `anchor`: that of a caller's hint, else that of the chain.
    """

    model: str
    chain: Chain = EMPTY
    text_bytes: int = 0
    anchor: bytes = b""


class EngineStats(NamedTuple):
    """An engine's statistics of one request; None: not reported. `prompt` includes `cached`."""

    prompt: int | None = None
    cached: int | None = None
    generated: int | None = None
    prefill_s: float | None = None
    decode_s: float | None = None


@dataclass(slots=True, eq=False)
class SentRequest:
    """One request that was sent to a replica, with the gateway's estimates at that moment."""

    replica: str
    prompt: PromptView
    tokens: float  # of the prompt, estimated
    known_tokens: float  # of these, in blocks that the replica probably has cached
    cached_tokens: float  # of these, corrected by earlier hits
    predicted_s: float
    moved: bool  # another replica had more of it cached
    had_slot: bool  # it did not wait for a slot
    pending_before: float  # tokens that the replica had to read before
    sent_at: float
    use: CacheUse | None  # of the replica's cache, by a conversation
    read_at: float | None = None  # when its first token came

    @property
    def uncached_tokens(self) -> float:
        return self.tokens - self.cached_tokens
