"""Ollama's routes, and the handling that all requests share."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from serve_app.go_json import encode
from serve_app.ollama_version import OLLAMA_VERSION
from serve_app.simulator import bodies, failures, listings
from serve_app.simulator.bodies import Body
from serve_app.simulator.catalogue import Catalogue, Model, canonical
from serve_app.simulator.control import Control, Counters
from serve_app.simulator.embeddings import EmbeddingRoutes
from serve_app.simulator.failures import ErrorAnswer
from serve_app.simulator.generation import SimulatedEngine
from serve_app.simulator.generation_routes import GENERATION_ROUTES, GenerationRoute
from serve_app.simulator.settings import SimulatorSettings
from serve_app.simulator.tasks import TaskBuilder
from serve_app.simulator.wire import ClientConnection, HttpRequest, HttpResponse

_V1_MODEL = "/v1/models/"


@dataclass(frozen=True, slots=True)
class SimulatorRoute:
    """A route. `generates`: it generates or embeds, so disconnects of callers count as aborts."""

    run: Callable[[HttpRequest, HttpResponse], Awaitable[None]]
    generates: bool = False


Methods = dict[str, SimulatorRoute]


class SimulatorServer:
    """Answers HTTP requests, as `wire.HttpHandler`."""

    engine_type: type[SimulatedEngine] = SimulatedEngine
    control_type: type[Control] = Control

    def __init__(self, settings: SimulatorSettings, connections: set[ClientConnection]) -> None:
        self._settings = settings
        self._catalogue = Catalogue(settings)
        self._task_builder = TaskBuilder(settings, self._catalogue)
        self._counters = Counters()
        self._engine = self.engine_type(settings, self._catalogue, self._counters)
        self._control = self.control_type(self._counters, self._engine.slots, connections)
        self._routes = self._all_routes()

    async def __call__(self, request: HttpRequest, response: HttpResponse) -> None:
        path = request.path
        if path.startswith("/_sim/"):
            self._control.answer(request, response)
            return
        self._control.count(request)
        methods = self._find(path)
        route = methods.get(request.method)
        if route is None:
            _refuse(methods, response)
        else:
            await self._answer_or_fail(route, request, response)

    async def _answer_or_fail(
        self, route: SimulatorRoute, request: HttpRequest, response: HttpResponse
    ) -> None:
        path = request.path
        try:
            await self._answer(route, request, response)
        except ErrorAnswer as error:
            failures.reply(response, path, error, stream=_wants_stream(path, request))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            # A field has a value of a wrong type. Ollama names the field, the simulator doesn't.
            malformed = ErrorAnswer(
                400, f"a field of the request has a value of a wrong type: {error}", early=True
            )
            failures.reply(response, path, malformed, stream=False)
        except asyncio.CancelledError:
            self._counters.aborts += route.generates
            raise

    async def _answer(
        self, route: SimulatorRoute, request: HttpRequest, response: HttpResponse
    ) -> None:
        await route.run(request, response)

    def _read_body(self, request: HttpRequest) -> Body:
        return bodies.read(request.body)

    def _find(self, path: str) -> Methods:
        name = path.removeprefix(_V1_MODEL)
        if path.startswith(_V1_MODEL) and name and "/" not in name:
            return {"GET": self._plain(lambda: self._v1_model(name), v1=True)}
        return self._routes.get(path, {})

    # routes

    def _all_routes(self) -> dict[str, Methods]:
        models, context = self._catalogue, self._settings.context_length
        tags = self._plain(lambda: listings.tags(models))
        version = self._plain(lambda: {"version": OLLAMA_VERSION})
        cloud = {"cloud": {"disabled": True, "source": "env"}}
        return {
            "/": {"HEAD": SimulatorRoute(_root), "GET": SimulatorRoute(_root)},
            "/api/version": {"HEAD": version, "GET": version},
            "/api/tags": {"HEAD": tags, "GET": tags},
            "/api/ps": {"GET": self._plain(lambda: listings.running(models, context))},
            "/api/status": {"GET": self._plain(lambda: cloud)},
            "/v1/models": {"GET": self._plain(lambda: listings.v1_models(models), v1=True)},
            **{path: {"POST": self._generating(r)} for path, r in GENERATION_ROUTES.items()},
            **self._routes_with_body(),
        }

    def _routes_with_body(self) -> dict[str, Methods]:
        embedder = EmbeddingRoutes(self._settings, self._catalogue, self._engine)
        v1 = embedder.v1_embeddings
        return {
            "/api/show": {"POST": self._with_body(self._show)},
            "/api/embed": {"POST": self._with_body(embedder.embed, generates=True)},
            "/api/embeddings": {"POST": self._with_body(embedder.embeddings, generates=True)},
            "/v1/embeddings": {"POST": self._with_body(v1, generates=True)},
        }

    def _plain(self, listing: Callable[[], Body], *, v1: bool = False) -> SimulatorRoute:
        async def run(request: HttpRequest, response: HttpResponse) -> None:
            if v1:
                response.whole(encode(listing()) + b"\n", "application/json")
            else:
                response.whole(encode(listing()))

        return SimulatorRoute(run)

    def _with_body(
        self, answer: Callable[[Body, HttpResponse], Awaitable[None]], *, generates: bool = False
    ) -> SimulatorRoute:
        async def run(request: HttpRequest, response: HttpResponse) -> None:
            await answer(self._read_body(request), response)

        return SimulatorRoute(run, generates)

    def _generating(self, route: GenerationRoute) -> SimulatorRoute:
        async def run(request: HttpRequest, response: HttpResponse) -> None:
            body = self._read_body(request)
            generation = route.parse(body)
            task = self._task_builder.build(generation)
            writer = route.writer(generation, body, task.output)
            await self._engine.generate(task, writer, response)

        return SimulatorRoute(run, generates=True)

    async def _show(self, body: Body, response: HttpResponse) -> None:
        name = body.get("model") or body.get("name") or ""
        if not name:
            raise ErrorAnswer(400, "model is required")
        model = self._known(name)
        response.whole(encode(listings.show(model, bool(body.get("verbose")))))

    def _v1_model(self, name: str) -> Body:
        return listings.v1_model(self._known(name))

    def _known(self, name: str) -> Model:
        model = self._catalogue.find(name)
        if model is None:
            raise ErrorAnswer(404, f"model '{canonical(name)}' not found")
        return model


async def _root(request: HttpRequest, response: HttpResponse) -> None:
    response.whole(b"Ollama is running", "text/plain; charset=utf-8")


def _refuse(methods: Methods, response: HttpResponse) -> None:
    if methods:
        allow = (("Allow", ", ".join(methods)),)
        response.whole(b"405 method not allowed", "text/plain", status=405, headers=allow)
    else:
        response.whole(b"404 page not found", "text/plain", status=404)


def _wants_stream(path: str, request: HttpRequest) -> bool:
    """Tell whether a refused request wants a stream, whose error has other headers."""
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(body, dict) and body.get("stream", not path.startswith("/v1/")) is True
