"""The protocol of an observer of loads and unloads."""

from collections.abc import Mapping
from typing import Protocol


class ModelObserver(Protocol):
    """Counts loads and unloads of models."""

    def loaded(self, model: str, seconds: float) -> None: ...

    def load_failed(self, model: str) -> None: ...

    def unloaded(self, model: str, seconds: float) -> None: ...

    def lost(self, model: str) -> None:
        """Note that the engine has unloaded a model by itself."""

    def waited(self, model: str, seconds: float) -> None:
        """Note that a call has waited for its model."""

    def changed(self, sizes: Mapping[str, int]) -> None:
        """Note the loaded models with their bytes."""


class Unobserved:
    """Counts nothing."""

    def _ignore(self, *args: object) -> None: ...

    loaded = load_failed = unloaded = lost = waited = changed = _ignore
