"""The simulator's server with pulls, faults and Go's error texts about bodies."""

from serve_app.simulator.bodies import Body
from serve_app.simulator.server import Methods, SimulatorRoute, SimulatorServer
from serve_app.simulator.wire import HttpRequest, HttpResponse
from tests.support.ollama_simulator import bodies
from tests.support.ollama_simulator.control import OllamaControl
from tests.support.ollama_simulator.generation import OllamaEngine
from tests.support.ollama_simulator.pulls import Puller
from tests.support.ollama_simulator.settings import OllamaSettings
from tests.support.ollama_simulator.wire import OllamaResponse


class OllamaServer(SimulatorServer):
    engine_type = OllamaEngine
    control_type = OllamaControl

    _control: OllamaControl
    _settings: OllamaSettings

    async def _answer(
        self, route: SimulatorRoute, request: HttpRequest, response: HttpResponse
    ) -> None:
        assert isinstance(response, OllamaResponse)
        faults = self._control.faults
        faults.die_of(request.body)
        response.fault = faults.take(request.path, generates=route.generates)
        if response.fault:
            await response.fault.before_answer()
        await super()._answer(route, request, response)

    def _read_body(self, request: HttpRequest) -> Body:
        return bodies.read(request.body, request.path)

    def _all_routes(self) -> dict[str, Methods]:
        puller = Puller(self._settings, self._catalogue)
        return {
            **super()._all_routes(),
            "/api/pull": {"POST": self._with_body(puller.pull)},
            "/api/delete": {"DELETE": self._with_body(puller.delete)},
        }
