"""The engine's counts, and the interface under /_sim/ that shows and resets them."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from serve_app.go_json import encode
from serve_app.simulator import failures
from serve_app.simulator.model_slots import ModelSlots
from serve_app.simulator.wire import ClientConnection, HttpRequest, HttpResponse


@dataclass(slots=True)
class Counters:
    """Sums since the start or the last reset; `requests` counts them by path."""

    requests: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    aborts: int = 0
    completed: int = 0
    loads: int = 0
    evictions: int = 0  # unloads by the engine itself, to make room

    def clear(self) -> None:
        # In place: the engine counts into this same object.
        fresh = Counters()
        for counter in fields(self):
            setattr(self, counter.name, getattr(fresh, counter.name))

    def report(self) -> dict[str, Any]:
        return {counter.name: getattr(self, counter.name) for counter in fields(self)}


class Control:
    """Answers requests under /_sim/, which are not counted themselves."""

    def __init__(
        self, counters: Counters, slots: ModelSlots, connections: Collection[ClientConnection]
    ) -> None:
        self._counters = counters
        self._slots = slots
        self._connections = connections

    def count(self, request: HttpRequest) -> None:
        """Count a request that is not under /_sim/."""
        self._counters.requests[request.path] += 1

    def answer(self, request: HttpRequest, response: HttpResponse) -> None:
        match request.method, request.path:
            case "GET", "/_sim/stats":
                response.whole(encode(self.stats()))
            case "POST", "/_sim/reset":
                self.reset()
                response.whole(b"{}")
            case _:
                error = f"no such control: {request.method} {request.path}"
                response.whole(failures.native(error), status=404)

    def stats(self) -> dict[str, Any]:
        return {
            **self._counters.report(),
            "in_flight": self._slots.running,
            "queued": self._slots.queued,
            "max_in_flight": self._slots.max_running,
            "max_queued": self._slots.max_queued,
            # Without the connection of this request.
            "open_connections": len(self._connections) - 1,
        }

    def reset(self) -> None:
        self._counters.clear()
        self._slots.reset_peaks()
