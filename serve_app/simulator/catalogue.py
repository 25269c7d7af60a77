"""The models: their names, abilities and load states."""

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256

from serve_app.go_json import duration
from serve_app.simulator.settings import Settings

_NAME = re.compile(r"(?:[\w.:-]+/)?(?:[\w-]+/)?\w[\w.-]*(?::\w[\w.-]*)?", re.ASCII)
# Go's longest duration, which Ollama uses for "for ever".
FOR_EVER_S = (1 << 63) / 1e9


def canonical(name: str) -> str:
    """Normalise a model's name: lower case, with a tag, without the default host."""
    name = name.lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def is_valid(name: str) -> bool:
    return bool(_NAME.fullmatch(name))


def seconds(keep_alive: object) -> float | None:
    """Convert a keep_alive (seconds, or a text such as "5m") to seconds; None if absent."""
    if isinstance(keep_alive, str):
        return -1.0 if keep_alive.startswith("-") else duration(keep_alive)
    return float(keep_alive) if isinstance(keep_alive, int | float) else None


@dataclass(slots=True)
class Model:
    name: str
    abilities: tuple[str, ...]
    digest: str
    modified_ns: int = field(default_factory=time.time_ns)
    ready_at: float | None = None  # on the monotonic clock; None: not loaded
    expires_at: float = 0.0

    @property
    def chats(self) -> bool:
        return "completion" in self.abilities

    @property
    def full_name(self) -> str:
        prefix = "registry.ollama.ai/" if "/" in self.name else "registry.ollama.ai/library/"
        return prefix + self.name

    @property
    def loaded(self) -> bool:
        now = time.monotonic()
        return self.ready_at is not None and self.ready_at <= now < self.expires_at


class Catalogue:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models: dict[str, Model] = {}
        for name in settings.models:
            self.add(name)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, name: str) -> Model | None:
        return self._models.get(canonical(name))

    def add(self, name: str) -> Model:
        name = canonical(name)
        digest = sha256(name.encode()).hexdigest()
        return self._models.setdefault(name, Model(name, self._abilities(name), digest))

    def remove(self, model: Model) -> None:
        del self._models[model.name]

    def embeds(self, model: Model) -> bool:
        return not self._settings.embed_models or not model.chats

    async def load(self, model: Model) -> float:
        """Wait until the model is loaded. Returns the duration in seconds."""
        now = time.monotonic()
        if model.ready_at is None or model.ready_at <= now >= model.expires_at:
            model.ready_at = now + self._settings.load_s
            model.expires_at = model.ready_at + FOR_EVER_S
        if (wait := model.ready_at - now) > 0:
            await asyncio.sleep(wait)
        return time.monotonic() - now

    def keep(self, model: Model, keep_alive: float | None) -> None:
        """Set the model to expire in so many seconds; None or less than 0: never."""
        for_ever = keep_alive is None or keep_alive < 0
        model.expires_at = time.monotonic() + (FOR_EVER_S if for_ever else keep_alive or 0.0)

    def _abilities(self, name: str) -> tuple[str, ...]:
        settings = self._settings
        if name in map(canonical, settings.embed_models):
            return ("embedding",)
        extra = {"tools": settings.tools_models, "thinking": settings.thinking_models}
        abilities = (ability for ability, names in extra.items() if name in map(canonical, names))
        return ("completion", *abilities)
