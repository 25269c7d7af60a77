"""Model names as Ollama matches them: in any case, with tag, library and registry optional."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

REGISTRY = "registry.ollama.ai"
LIBRARY = "library"


def full_name(name: str) -> str:
    """The one spelling under which two names are the same model.

    `SmolLM2:135M`, `library/smollm2:135m` and `registry.ollama.ai/library/smollm2:135m` give
    `registry.ollama.ai/library/smollm2:135m`; a name without a tag gets `:latest`.
    """
    *where, last = name.lower().split("/")
    where = [REGISTRY, LIBRARY][: max(0, 2 - len(where))] + where
    model, _, tag = last.partition(":")
    return "/".join([*where, f"{model}:{tag or 'latest'}"])


def short_name(name: str) -> str:
    """`name` with its tag, as listings show it: `smollm2` gives `smollm2:latest`."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class ModelNames:
    """Finds the configured spelling of a model from any spelling of a caller."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_full = {full_name(name): short_name(name) for name in names}
        self.find = lru_cache(maxsize=1024)(self._find)

    def _find(self, name: str) -> str | None:
        """The canonical name, or None if no such model is configured."""
        return self._by_full.get(full_name(name)) if len(name) <= 512 else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_full.values())
