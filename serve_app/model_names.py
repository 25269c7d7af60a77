"""Model names as Ollama matches them: in any case, with optional tag, library and registry."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

REGISTRY = "registry.ollama.ai"
LIBRARY = "library"


def full_name(name: str) -> str:
    """Return the full spelling of `name`, which is equal for equal models.

    `SmolLM2:135M`, `library/smollm2:135m` and `registry.ollama.ai/library/smollm2:135m` give
    `registry.ollama.ai/library/smollm2:135m`; a name without a tag gets `:latest`.
    """
    *prefix, last = name.lower().split("/")
    prefix = [REGISTRY, LIBRARY][: max(0, 2 - len(prefix))] + prefix
    model, _, tag = last.partition(":")
    return "/".join([*prefix, f"{model}:{tag or 'latest'}"])


def short_name(name: str) -> str:
    """Return `name` with its tag, as listings show it: `smollm2` gives `smollm2:latest`."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def plain_name(name: str) -> str:
    """Return the shortest spelling of `name`, which is equal for equal models.

    `library/SmolLM2:135m` gives `smollm2:135m`, `llama3` gives `llama3:latest`.
    """
    return full_name(name).removeprefix(f"{REGISTRY}/").removeprefix(f"{LIBRARY}/")


def model_pattern(pattern: str) -> str:
    """Return a name or a pattern for comparison with plain names.

    A `*` at its end stands for tags too; without it and without a tag `:latest` is meant.
    Raises ValueError for a pattern with a prefix that plain names do not have.
    """
    if not set("*?[") & set(pattern):
        return plain_name(pattern)
    pattern = pattern.lower()
    if pattern.startswith((f"{REGISTRY}/", f"{LIBRARY}/")):
        raise ValueError(f"must be without {REGISTRY}/ and {LIBRARY}/, as it is a pattern")
    return pattern if pattern.endswith("*") else short_name(pattern)


class ModelNames:
    """Maps any spelling of a model's name, or of an alias, to the configured one."""

    def __init__(self, names: Iterable[str], aliases: Iterable[str] = ()) -> None:
        self._by_full = {full_name(name): short_name(name) for name in names}
        self._by_full |= {full_name(alias): alias for alias in aliases}
        self.find = lru_cache(maxsize=1024)(self._find)

    def _find(self, name: str) -> str | None:
        """Return the canonical name, or None for a model that is not configured."""
        return self._by_full.get(full_name(name)) if len(name) <= 512 else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_full.values())
