"""Actors of Ray without a cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Method:
    """A method of an actor's handle. `remote`: what its calls do."""

    remote: Callable[..., Any]

    def options(self, *, enable_task_events: bool) -> Self:
        """Accept the options that the service uses, which change no result."""
        return self
