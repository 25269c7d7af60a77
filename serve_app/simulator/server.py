"""The routes of Ollama, and what happens around each request."""

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
from serve_app.simulator.dialects import DIALECTS, SimulatedRoute
from serve_app.simulator.embeddings import Embedder
from serve_app.simulator.failures import ApiError
from serve_app.simulator.faults import Fault
from serve_app.simulator.generation import Engine, Voice
from serve_app.simulator.jobs import Planner
from serve_app.simulator.pulls import Puller
from serve_app.simulator.settings import Settings
from serve_app.simulator.wire import Connection, HttpRequest, Response

_V1_MODEL = "/v1/models/"


@dataclass(frozen=True, slots=True)
class Route:
    """`answers`: it generates or embeds, so hang-ups count and faults without a path apply."""

    run: Callable[[HttpRequest, Response, Fault | None], Awaitable[None]]
    answers: bool = False


Methods = dict[str, Route]


class Server:
    """Call it with each request, as `wire.Handler`."""

    def __init__(self, settings: Settings, connections: set[Connection]) -> None:
        self._settings = settings
        self._catalogue = Catalogue(settings)
        self._planner = Planner(settings, self._catalogue)
        self._counters = Counters()
        self._engine = Engine(settings, self._catalogue, self._counters)
        self._control = Control(self._counters, self._engine.slots, connections)
        self._routes = self._all_routes()

    async def __call__(self, request: HttpRequest, response: Response) -> None:
        path = request.path
        if path.startswith("/_sim/"):
            self._control.answer(request, response)
            return
        self._counters.saw(request)
        methods = self._find(path)
        route = methods.get(request.method)
        if route is None:
            _refuse(methods, response)
        else:
            await self._run(route, path, request, response)

    async def _run(self, route: Route, path: str, request: HttpRequest, response: Response) -> None:
        self._control.faults.die_of(request.body)
        fault = self._control.faults.take(path, answers=route.answers)
        try:
            if fault:
                await fault.before_answer()
            await route.run(request, response, fault)
        except ApiError as error:
            failures.reply(response, path, error, stream=_wants_stream(path, request))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            # A value of a type that its field can't have: Go says which, we say that much.
            malformed = ApiError(400, f"json: cannot unmarshal the request: {error}", early=True)
            failures.reply(response, path, malformed, stream=False)
        except asyncio.CancelledError:
            self._counters.aborts += route.answers
            raise

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
            "/": {"HEAD": Route(_root), "GET": Route(_root)},
            "/api/version": {"HEAD": version, "GET": version},
            "/api/tags": {"HEAD": tags, "GET": tags},
            "/api/ps": {"GET": self._plain(lambda: listings.running(models, context))},
            "/api/status": {"GET": self._plain(lambda: cloud)},
            "/v1/models": {"GET": self._plain(lambda: listings.v1_models(models), v1=True)},
            **{path: {"POST": self._generating(path, each)} for path, each in DIALECTS.items()},
            **self._routes_with_body(),
        }

    def _routes_with_body(self) -> dict[str, Methods]:
        embedder = Embedder(self._settings, self._catalogue, self._engine)
        puller = Puller(self._settings, self._catalogue)
        embed, legacy, v1 = embedder.embed, embedder.embeddings, embedder.v1_embeddings
        return {
            "/api/show": {"POST": _with_body("api.ShowRequest", self._show)},
            "/api/pull": {"POST": _with_body("api.PullRequest", puller.pull)},
            "/api/delete": {"DELETE": _with_body("api.DeleteRequest", puller.delete)},
            "/api/embed": {"POST": _with_body("api.EmbedRequest", embed, answers=True)},
            "/api/embeddings": {"POST": _with_body("api.EmbeddingRequest", legacy, answers=True)},
            "/v1/embeddings": {"POST": _with_body("openai.EmbedRequest", v1, answers=True)},
        }

    def _plain(self, listing: Callable[[], Body], *, v1: bool = False) -> Route:
        async def run(request: HttpRequest, response: Response, fault: Fault | None) -> None:
            if v1:
                response.whole(encode(listing()) + b"\n", "application/json")
            else:
                response.whole(encode(listing()))

        return Route(run)

    def _generating(self, path: str, dialect: SimulatedRoute) -> Route:
        empty = "EOF" if path.startswith("/v1/") else "missing request body"

        async def run(request: HttpRequest, response: Response, fault: Fault | None) -> None:
            body = _body(request, dialect.struct, empty)
            ask = dialect.ask(body)
            job = self._planner.plan(ask)
            voice = dialect.voice(ask, body, job.answer)
            if fault and fault.kind == "comment":
                await _comment(fault, voice, response, stream=job.stream)
            await self._engine.generate(job, voice, response, fault)

        return Route(run, answers=True)

    async def _show(self, body: Body, response: Response) -> None:
        name = body.get("model") or body.get("name") or ""
        if not name:
            raise ApiError(400, "model is required")
        model = self._known(name)
        response.whole(encode(listings.show(model, bool(body.get("verbose")))))

    def _v1_model(self, name: str) -> Body:
        return listings.v1_model(self._known(name))

    def _known(self, name: str) -> Model:
        model = self._catalogue.find(name)
        if model is None:
            raise ApiError(404, f"model '{canonical(name)}' not found")
        return model


async def _root(request: HttpRequest, response: Response, fault: Fault | None) -> None:
    response.whole(b"Ollama is running", "text/plain; charset=utf-8")


def _with_body(
    struct: str, answer: Callable[[Body, Response], Awaitable[None]], *, answers: bool = False
) -> Route:
    empty = "EOF" if struct.startswith("openai.") else "missing request body"

    async def run(request: HttpRequest, response: Response, fault: Fault | None) -> None:
        await answer(_body(request, struct, empty), response)

    return Route(run, answers)


def _body(request: HttpRequest, struct: str, empty: str) -> Body:
    body = bodies.read(request.body, struct, empty)
    bodies.expect(body, struct, "model", str, "string")
    return body


def _refuse(methods: Methods, response: Response) -> None:
    if methods:
        allow = (("Allow", ", ".join(methods)),)
        response.whole(b"405 method not allowed", "text/plain", status=405, headers=allow)
    else:
        response.whole(b"404 page not found", "text/plain", status=404)


async def _comment(fault: Fault, voice: Voice, response: Response, *, stream: bool) -> None:
    """What proxies in front of slow models do to keep a stream open before its first token."""
    events = stream and voice.stream_type == "text/event-stream"
    if events:
        response.begin(voice.stream_type, headers=voice.stream_headers)
    for _ in range(max(1, round(fault.for_s / fault.every_s))):
        if events:
            response.send([b": ping\n\n"])
        await asyncio.sleep(fault.every_s)


def _wants_stream(path: str, request: HttpRequest) -> bool:
    """What an erroneous request wanted; the errors of a stream have other headers."""
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(body, dict) and body.get("stream", not path.startswith("/v1/")) is True
