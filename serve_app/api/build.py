"""Puts the API together from settings and a dispatcher."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

from serve_app.access.authenticator import authenticator
from serve_app.access.limits.days import Calendar
from serve_app.access.limits.limiter import build_limiter
from serve_app.access.usage.totals import Ledger
from serve_app.api import anthropic, ollama, openai
from serve_app.api.app import Api, Route
from serve_app.api.bodies import Bodies
from serve_app.api.charge import Charges
from serve_app.api.docs import documentation
from serve_app.api.endpoint import RequestBounds
from serve_app.api.fleet_pages import AdminAccess, FleetPages, FleetSource
from serve_app.api.guard import Guard
from serve_app.api.inference import Dispatcher, Inference, RequestTracer
from serve_app.api.listings import Listings, refuse_management
from serve_app.api.request_trace import Observer
from serve_app.api.usage import Observers, UsagePages, UsageRecorder, build_ledger
from serve_app.limit_settings import Cost, zone
from serve_app.model_names import ModelNames
from serve_app.settings import Settings

_ENDPOINTS = (*openai.ENDPOINTS, *ollama.ENDPOINTS, *anthropic.ENDPOINTS)


def build_api(
    settings: Settings,
    dispatcher: Dispatcher,
    observer: Observer,
    on_shutdown: Callable[[], Awaitable[None]],
    max_replicas: int | None = None,
    fleet: FleetSource | None = None,
    http_host: str | None = "127.0.0.1",
    tracer: RequestTracer | None = None,
) -> Api:
    """Build the ASGI application, in its event loop. Raises SettingsError without readable keys.

    `max_replicas`: the ingress's, where Serve's options differ from the settings.
    `fleet`: the document of `/ui`; None: there is no such page. `http_host`: Serve's address.
    """
    names = ModelNames(settings.model_names, settings.aliases)
    calendar = Calendar(zone(settings.limits.timezone))
    limiter, ledger = build_limiter(settings.limits), build_ledger(settings)
    limiter.start()
    stop_exchange = _start_exchange(settings, dispatcher)
    known = authenticator(settings, observer.note_keys_file, max_replicas)
    access = AdminAccess(known, http_host)
    routes = [
        *_inference_routes(settings, dispatcher, names, Charges(limiter), tracer),
        *_listing_routes(Listings(dispatcher, names, settings.aliases)),
        *_usage_routes(settings, ledger, calendar, access, limiter.cost, max_replicas),
        *(FleetPages(fleet, access).routes() if fleet else ()),
        *_management_routes(),
    ]
    if settings.has_callers:
        observer = Observers(UsageRecorder(ledger, calendar), observer)
    front = Guard(known, settings.allowed_hosts, settings.allowed_origins)
    return Api(
        [*routes, *documentation(routes, list(names))],
        front,
        observer,
        lambda: _stop(limiter.close, ledger.close, stop_exchange, on_shutdown),
    )


async def _stop(*steps: Callable[[], Awaitable[None]]) -> None:
    """Run every step, even after one that fails."""
    async with AsyncExitStack() as stack:
        for step in reversed(steps):
            stack.push_async_callback(step)


def _start_exchange(settings: Settings, dispatcher: Dispatcher) -> Callable[[], Awaitable[None]]:
    """Let queues exchange the service of their keys, where there is a Redis for it."""
    limits = settings.limits
    if limits.redis_url is None or not settings.has_callers:
        return _nothing
    # Their import takes 50 ms.
    from serve_app.access.limits.redis_connection import redis_client
    from serve_app.access.service_exchange import ServiceExchange

    client = redis_client(limits.redis_url.get_secret_value(), limits.redis_password_file)
    exchange = ServiceExchange(client, dispatcher.queues())
    exchange.start()
    return exchange.close


async def _nothing() -> None:
    """Do nothing: the exchange was not started."""


def _usage_routes(
    settings: Settings,
    ledger: Ledger,
    calendar: Calendar,
    access: AdminAccess,
    cost: Callable[[str], Cost],
    max_replicas: int | None,
) -> list[Route]:
    replicas = max_replicas or settings.max_ingress_replicas
    problem = (
        f"usage is counted in memory, and the ingress may have {replicas} replicas, each with "
        "counts of its own: set limits.store to redis"
        if settings.limits.store == "memory" and replicas > 1
        else ""
    )
    pages = UsagePages(ledger, calendar, settings.limits.timezone, access, cost, problem)
    return [
        Route("GET", "/usage", pages.own, "The caller's use and limits"),
        Route("GET", "/admin/usage", pages.everyone, "Everyone's use; needs an admin key"),
    ]


def _inference_routes(
    settings: Settings,
    dispatcher: Dispatcher,
    names: ModelNames,
    charges: Charges,
    tracer: RequestTracer | None,
) -> list[Route]:
    bounds = RequestBounds(
        settings.max_tokens, settings.allow_model_options, settings.max_schema_nodes
    )
    at_once = sum(pool.admitted for pool in settings.all_pools)
    bodies = Bodies(int(settings.max_body_mib * 2**20), settings.body_timeout_s, at_once)
    return [
        Route(
            "POST",
            endpoint.path,
            Inference(
                *(endpoint, dispatcher, names, charges, bounds, bodies),
                *(settings.aliases, settings.alias_wait_s, settings.loading_pings, tracer),
            ),
            endpoint.summary,
            endpoint.example,
        )
        for endpoint in _ENDPOINTS
    ]


def _listing_routes(listings: Listings) -> list[Route]:
    get = [
        Route("GET", "/v1/models", listings.models, "Models"),
        Route("GET", "/v1/models/*", listings.model, "One model; its id may hold : and /"),
        Route("GET", "/api/ps", listings.running, "Loaded models"),
        Route("GET", "/healthz", listings.healthz, "The process is up", open=True),
        Route("GET", "/readyz", listings.readyz, "Every pool can answer", open=True),
    ]
    also_head = [
        Route("GET", "/", listings.root, "Ollama's sign of life"),
        Route("GET", "/api/version", listings.version, "Version of Ollama's API"),
        Route("GET", "/api/tags", listings.tags, "Models"),
    ]
    return [*get, *also_head, *(replace(route, method="HEAD") for route in also_head)]


def _management_routes() -> list[Route]:
    routes = [
        *ollama.MANAGEMENT,
        ("POST", "/api/blobs/*"),
        ("HEAD", "/api/blobs/*"),
        ("DELETE", "/api/user/*"),
    ]
    return [
        Route(method, path, refuse_management, "Refused: models are configured", hidden=False)
        for method, path in routes
    ]
