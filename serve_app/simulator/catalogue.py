"""The models: their names, abilities, sizes and load states."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256

from serve_app.go_json import parse_duration
from serve_app.simulator.settings import SimulatorSettings

_NAME = re.compile(r"(?:[\w.:-]+/)?(?:[\w-]+/)?\w[\w.-]*(?::\w[\w.-]*)?", re.ASCII)
# Go's longest duration, which Ollama uses for "for ever".
FOR_EVER_S = (1 << 63) / 1e9
DEFAULT_MIB = 198


def canonical(name: str) -> str:
    """Normalise a model's name: lower case, with a tag, without the default host."""
    name = name.lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def is_valid(name: str) -> bool:
    return bool(_NAME.fullmatch(name))


def parse_keep_alive(keep_alive: object) -> float | None:
    """Convert a keep_alive (seconds, or a text such as "5m") to seconds; None if absent.

    Less than 0 means for ever.
    """
    if isinstance(keep_alive, str):
        return -1.0 if keep_alive.startswith("-") else parse_duration(keep_alive)
    return float(keep_alive) if isinstance(keep_alive, int | float) else None


@dataclass(slots=True)
class Model:
    """One model, with its abilities and its load state."""

    name: str
    abilities: tuple[str, ...]
    digest: str
    mib: int  # when it is loaded
    modified_ns: int = field(default_factory=time.time_ns)
    loads: int = 0
    users: int = 0  # requests that run, or wait for a slot
    keep_alive_s: float = FOR_EVER_S
    expires_at: float = 0.0  # on the monotonic clock, if no request comes

    @property
    def chats(self) -> bool:
        return "completion" in self.abilities

    @property
    def full_name(self) -> str:
        prefix = "registry.ollama.ai/" if "/" in self.name else "registry.ollama.ai/library/"
        return prefix + self.name

    @property
    def loaded(self) -> bool:
        return self.users > 0 or time.monotonic() < self.expires_at

    def begin(self) -> None:
        """Note that the model was loaded."""
        self.loads += 1
        self.keep_alive_s = FOR_EVER_S
        self.begin_to_expire()

    def begin_to_expire(self) -> None:
        self.expires_at = time.monotonic() + self.keep_alive_s


class Catalogue:
    """The models of an engine by their full names."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._models: dict[str, Model] = {}
        self._mib = dict(map(_sized, settings.model_mib))
        for name in settings.models:
            self.add(name)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, name: str) -> Model | None:
        return self._models.get(canonical(name))

    def add(self, name: str) -> Model:
        name = canonical(name)
        digest = sha256(name.encode()).hexdigest()
        mib = self._mib.get(name, DEFAULT_MIB)
        return self._models.setdefault(name, Model(name, self._abilities(name), digest, mib))

    def remove(self, model: Model) -> None:
        del self._models[model.name]

    def embeds(self, model: Model) -> bool:
        return not self._settings.embed_models or not model.chats

    def _abilities(self, name: str) -> tuple[str, ...]:
        settings = self._settings
        if name in map(canonical, settings.embed_models):
            return ("embedding",)
        extra = {"tools": settings.tools_models, "thinking": settings.thinking_models}
        abilities = (ability for ability, names in extra.items() if name in map(canonical, names))
        return ("completion", *abilities)


def _sized(text: str) -> tuple[str, int]:
    name, _, mib = text.rpartition("=")
    return canonical(name), int(mib)
