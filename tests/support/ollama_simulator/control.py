"""The control interface with /_sim/fault, and with the requests themselves in /_sim/stats."""

from collections import deque
from collections.abc import Collection
from typing import Any

from serve_app.simulator import bodies, failures
from serve_app.simulator.control import Control, Counters
from serve_app.simulator.failures import ErrorAnswer
from serve_app.simulator.model_slots import ModelSlots
from serve_app.simulator.wire import ClientConnection, HttpRequest, HttpResponse
from tests.support.ollama_simulator.faults import Faults

_HISTORY = 200
_HISTORY_BYTES = 4096


class OllamaControl(Control):
    def __init__(
        self, counters: Counters, slots: ModelSlots, connections: Collection[ClientConnection]
    ) -> None:
        super().__init__(counters, slots, connections)
        self.faults = Faults()
        self._last: HttpRequest | None = None
        self._history: deque[HttpRequest] = deque(maxlen=_HISTORY)

    def count(self, request: HttpRequest) -> None:
        super().count(request)
        self._last = request
        self._history.append(request)

    def answer(self, request: HttpRequest, response: HttpResponse) -> None:
        if (request.method, request.path) != ("POST", "/_sim/fault"):
            super().answer(request, response)
            return
        try:
            self.faults.plan(bodies.read(request.body))
        except ErrorAnswer as error:
            failures.reply(response, request.path, error, stream=False)
        else:
            response.whole(b"{}")

    def stats(self) -> dict[str, Any]:
        return {
            **super().stats(),
            "last": _full(self._last) if self._last else None,
            "history": [_brief(request) for request in self._history],
        }

    def reset(self) -> None:
        super().reset()
        self.faults.clear()
        self._last = None
        self._history.clear()


def _full(request: HttpRequest) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.path,
        "headers": request.headers,
        "body": request.body.decode("utf-8", "replace"),
    }


def _brief(request: HttpRequest) -> dict[str, Any]:
    body = request.body[:_HISTORY_BYTES].decode("utf-8", "replace")
    return {"path": request.path, "headers": request.headers, "body": body}
