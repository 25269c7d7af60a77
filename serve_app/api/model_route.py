"""The models that a call to an alias is sent to, one after the other."""

from random import random
from zlib import crc32

from serve_app.aliases import Target, order
from serve_app.engines.base import MAX_TRIES, Answer
from serve_app.errors import (
    ContextLengthExceeded,
    EngineDown,
    EngineError,
    EngineLost,
    Overloaded,
    ServiceError,
)

HEADER = b"x-model-route"

# Why the next model of an alias is tried. No other error moves a call on.
_REASONS: dict[type[ServiceError], str] = {
    EngineDown: "down",
    EngineLost: "down",
    Overloaded: "full",
    ContextLengthExceeded: "context",
}


class ModelRoute:
    """The way of one call to an alias. `session`: its calls begin at the same model.

    `model`: the one to try. `tries`: engines that may still be lost with the call.
    """

    def __init__(self, alias: str, targets: tuple[Target, ...], session: str) -> None:
        draw = crc32(session.encode()) / 2**32 if session else random()
        self._alias = alias
        self._others = list(order(targets, draw))
        self._reason = "weight" if any(target.weight for target in targets) else "first"
        self.model = self._others.pop(0)
        self.tries = MAX_TRIES

    @property
    def is_last(self) -> bool:
        return not self._others

    def fall_back(self, exc: ServiceError) -> bool:
        """Go on to the next model. Returns False where there is none that may help."""
        reason = next((why for kind, why in _REASONS.items() if isinstance(exc, kind)), None)
        if isinstance(exc, EngineError):
            self.tries -= exc.engines
        if reason is None or self.is_last or self.tries <= 0:
            return False
        self._reason, self.model = reason, self._others.pop(0)
        return True

    def mark(self, answer: Answer) -> Answer:
        """Name the alias, the model that answers and the reason for it in a header."""
        value = f"{self._alias} -> {self.model}; reason={self._reason}"
        answer.headers = (*answer.headers, (HEADER, value.encode()))
        return answer
