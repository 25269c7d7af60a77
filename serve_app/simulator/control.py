"""What reached the engine, and the interface under /_sim/ to read that and to plan faults."""

from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from serve_app.go_json import encode
from serve_app.simulator import bodies, failures
from serve_app.simulator.failures import ApiError
from serve_app.simulator.faults import Faults
from serve_app.simulator.speed import Slots
from serve_app.simulator.wire import Connection, HttpRequest, Response

_HISTORY = 200
_HISTORY_BYTES = 4096


@dataclass(slots=True)
class Counters:
    requests: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    aborts: int = 0
    completed: int = 0
    last: HttpRequest | None = None
    history: deque[HttpRequest] = field(default_factory=lambda: deque(maxlen=_HISTORY))

    def saw(self, request: HttpRequest) -> None:
        self.requests[request.path] += 1
        self.last = request
        self.history.append(request)

    def clear(self) -> None:
        # In place: the engine counts into this same object.
        fresh = Counters()
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))

    def report(self) -> dict[str, Any]:
        return {
            "requests": dict(self.requests),
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "aborts": self.aborts,
            "completed": self.completed,
            "last": _full(self.last) if self.last else None,
            "history": [_brief(request) for request in self.history],
        }


def _full(request: HttpRequest) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.path,
        "headers": request.headers,
        "body": request.body.decode("utf-8", "replace"),
    }


def _brief(request: HttpRequest) -> dict[str, str]:
    return {"path": request.path, "body": request.body[:_HISTORY_BYTES].decode("utf-8", "replace")}


class Control:
    """Answers under /_sim/, about everything but the requests under /_sim/ themselves."""

    def __init__(self, counters: Counters, slots: Slots, open_: Collection[Connection]) -> None:
        self.faults = Faults()
        self.counters = counters
        self._slots = slots
        self._open = open_

    def answer(self, request: HttpRequest, response: Response) -> None:
        match request.method, request.path:
            case "GET", "/_sim/stats":
                response.whole(encode(self._stats()))
            case "POST", "/_sim/reset":
                self._reset()
                response.whole(b"{}")
            case "POST", "/_sim/fault":
                self._plan_fault(request, response)
            case _:
                response.whole(failures.native("no such control"), status=404)

    def _stats(self) -> dict[str, Any]:
        return {
            **self.counters.report(),
            "in_flight": self._slots.running,
            "queued": self._slots.queued,
            "max_in_flight": self._slots.max_running,
            "max_queued": self._slots.max_queued,
            # The one that asks is open too, and is of no interest.
            "open_connections": len(self._open) - 1,
        }

    def _reset(self) -> None:
        self.faults.clear()
        self.counters.clear()
        self._slots.forget_peaks()

    def _plan_fault(self, request: HttpRequest, response: Response) -> None:
        try:
            self.faults.plan(bodies.read(request.body, "sim.Fault", "missing request body"))
        except ApiError as error:
            failures.reply(response, request.path, error, stream=False)
        else:
            response.whole(b"{}")
