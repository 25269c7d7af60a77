"""The protocol of an engine, and the values that pass between it and the service."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from serve_app.engines.span import Span

# Engines, in all pools and replicas, that one request may kill.
MAX_TRIES = 3


class Priority(StrEnum):
    """The band of a request in every queue, the most urgent first."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Flow:
    """The requests that take turns as one in a queue: those of a key, within its group.

    `key`: "" where the service has no keys. `group`: "" for a key without one.
    """

    key: str = ""
    group: str = ""
    weight: float = 1.0
    group_weight: float = 1.0
    priority: Priority = Priority.STANDARD


class Served(NamedTuple):
    """Service that one queue has given to the requests of a key, as Call.service counts it.

    `band`: the number of the priority, the most urgent is 0.
    """

    band: int
    group: str
    key: str
    weight: float
    group_weight: float
    service: float


class ServiceQueue(Protocol):
    """A fair queue that may count the service of the other queues of its pool."""

    def take_served(self) -> list[Served]:
        """Return the service of each key since the last call; the first call starts the count."""

    def credit(self, served: Iterable[Served], age_s: float) -> None:
        """Count another queue's service of `age_s` seconds ago."""


# Not frozen, although no code changes one: that would triple the 1.3 us of its creation.
@dataclass(slots=True)
class Call:
    """One checked request on its way to an engine.

    Nothing in it is the client's own bytes: `path` comes from the table of routes, `model` is the
    canonical name, `body` is encoded anew (a JSON object in UTF-8 with the canonical `model`).
    """

    path: str  # e.g. "/v1/chat/completions", "/api/chat", "/v1/messages"
    model: str
    body: bytes
    stream: bool
    takes_slot: bool = True  # False for a lookup, which neither generates nor embeds
    request_id: str = ""
    affinity: str | None = None  # the hash of a hint: calls with the same one share a beginning
    headers: tuple[tuple[str, str], ...] = ()  # headers with a meaning to the engine
    tries: int = MAX_TRIES  # engines that may still be lost with it
    flow: Flow = Flow()  # its place in queues
    service: float = 0.0  # expected: prompt tokens + 2 x generated tokens
    deadline: float | None = None  # deadline of its first byte, on the event loop's clock
    # For the placement, see dispatch/pool_placement.py: the payload of a conversation, which no
    # replica gets, the blocks of its prompt, and the tokens that its replica is expected to read.
    conversation: Mapping[str, Any] | None = None
    blocks: bytes = b""
    unread_tokens: float = 0.0
    span: Span | None = None  # None: the call is not traced


class Placed(NamedTuple):
    """A call's replica, as predicted. `moved`: another one probably had more of it cached."""

    replica: str
    predicted_s: float
    cached_tokens: int
    moved: bool


@dataclass(slots=True)
class Usage:
    """An engine's counts of one answer, or None. `prompt` includes `cached`.

    `prefill_s`, `decode_s`: seconds that it took to read the prompt, and to generate.
    """

    prompt: int | None = None
    generated: int | None = None
    cached: int | None = None
    prefill_s: float | None = None
    decode_s: float | None = None


class Answer:
    """An engine's answer: status, headers, and a body that comes in chunks.

    The first chunk has been received. The owner must `close` the answer on every path; closing it
    before its end makes the engine stop generating.

    Iterating over `body` yields non-empty `bytes` exactly as the engine sent them, and raises
    EngineLost when the connection breaks before the body's end.
    """

    __slots__ = (
        "_closers",
        "body",
        "broke_off",
        "deadline",
        "headers",
        "is_last",
        "placed",
        "queued_s",
        "replica",
        "served",
        "status",
        "usage",
    )

    def __init__(
        self,
        status: int,
        headers: tuple[tuple[bytes, bytes], ...],
        body: AsyncIterator[bytes],
        close: Callable[[], None] | None = None,
        is_last: Callable[[], bool] = lambda: False,
    ) -> None:
        self.status = status
        self.headers = headers  # lower-case names; only content-type and cache-control
        self.body = body
        self.is_last = is_last  # tells whether the chunk just read is known to be the last
        self.deadline: float | None = None  # deadline of its end, on the event loop's clock
        self.queued_s = 0.0  # time for which its call has waited in queues
        self.replica = ""  # the id of the replica, where that is another process
        self.broke_off = False  # the engine ended it incomplete, as its owner has found
        self.served: float | None = None  # as Call.service, once the engine has counted
        self.usage: Usage | None = None  # once the engine has counted
        self.placed: Placed | None = None  # None: without a prediction
        self._closers = [close] if close else []

    def on_close(self, closer: Callable[[], None]) -> None:
        """Run `closer` once, when the answer is closed."""
        self._closers.append(closer)

    def close(self) -> None:
        while self._closers:
            self._closers.pop()()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model, in the terms of Ollama's listings. Sizes are bytes."""

    name: str
    size: int = 0
    loaded: bool = True
    size_loaded: int = 0
    size_vram: int = 0
    digest: str = ""
    modified_at: str = "1970-01-01T00:00:00Z"  # RFC 3339
    format: str = "gguf"
    family: str = ""
    parameter_size: str = ""  # e.g. "134.52M"
    quantization_level: str = ""  # e.g. "Q4_1"
    context_length: int = 0  # in training
    embedding_length: int = 0
    loaded_context_length: int = 0  # of one slot of the engine
    capabilities: tuple[str, ...] = ("completion",)

    @property
    def usable_context(self) -> int:
        """The maximum of tokens of one request, at most that of training; 0: unknown."""
        known = [size for size in (self.context_length, self.loaded_context_length) if size]
        return min(known, default=0)

    def details(self) -> dict[str, object]:
        """Return the `details` of the model in Ollama's listings."""
        return {
            "parent_model": "",
            "format": self.format,
            "family": self.family,
            "families": [self.family],
            "parameter_size": self.parameter_size,
            "quantization_level": self.quantization_level,
        }


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """The state of an engine.

    `down_for_s`: seconds since it was last ready, 0 while it is ready.
    `phases`: seconds of the last start by phase (up, pull, load). `phase`: the present one.
    """

    state: State
    detail: str = ""
    down_for_s: float = 0.0
    restarts: int = 0
    version: str = ""
    url: str = ""
    models: tuple[ModelCard, ...] = ()
    phases: tuple[tuple[str, float], ...] = ()
    phase: str = ""


class Engine(Protocol):
    """A server that generates tokens, beside the replica on the same host."""

    async def ready(self) -> None:
        """Start the engine once; return when every model of the preload set has given a token.

        Raises EngineStartError or SettingsError when it can't be started.
        """

    async def stop(self) -> None:
        """Stop the processes that this engine started. Safe to call twice."""

    @property
    def status(self) -> EngineStatus: ...

    async def send(self, call: Call) -> Answer:
        """Forward a call; return the answer with its first chunk.

        Raises EngineDown (not reachable, nothing was sent), EngineLost (broke off before the first
        byte), EngineSlow (a stream gave no first token in time).
        """
