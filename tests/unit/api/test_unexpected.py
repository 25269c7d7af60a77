"""An exception that nobody foresaw: told in the caller's dialect, logged, counted, never "ok"."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
import yaml

from serve_app.access.authenticator import Authenticator
from serve_app.access.keys.watch import KeyWatch
from serve_app.access.limits.limiter import build_limiter
from serve_app.api import anthropic, ollama, openai, pings
from serve_app.api.app import Api, Route
from serve_app.api.bodies import Bodies
from serve_app.api.charge import Charges
from serve_app.api.endpoint import Endpoint, Payload, RequestBounds
from serve_app.api.guard import Guard
from serve_app.api.inference import Inference
from serve_app.api.relay import AnswerEnd
from serve_app.api.request_trace import RequestTrace
from serve_app.api.usage import Observers
from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.errors import ServiceError
from serve_app.limit_settings import LimitSettings
from serve_app.model_names import ModelNames
from tests.support.manifests import ROOT
from tests.support.service import Noted, listening
from tests.unit.api.test_bad_input import VALID, message

ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (*openai.ENDPOINTS, *ollama.ENDPOINTS, *anthropic.ENDPOINTS)
}
STREAMED = [path for path, endpoint in ENDPOINTS.items() if endpoint.streams != "never"]
PLANTED = "planted: not for callers"


def boom(*_: Any) -> Any:
    raise LookupError(PLANTED)


class Dispatcher:
    """Gives `answer(call)`, once `goes_on` is set."""

    def __init__(self, answer: Callable[[Call], Answer]) -> None:
        self._answer = answer
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def send(self, call: Call) -> Answer:
        await self.goes_on.wait()
        return self._answer(call)

    def cards(self) -> tuple[ModelCard, ...]:
        return ()

    def version(self) -> str:
        return ""

    async def problem(self) -> str:
        return ""


def answer(kind: bytes, *pieces: bytes, broken: bool) -> Answer:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
        if broken:
            boom()

    return Answer(200, ((b"content-type", kind),), body())


class BrokenGuard(Guard):
    def __init__(self, **methods: Any) -> None:
        super().__init__(Authenticator(KeyWatch({})), (), ())
        self.__dict__ |= methods


class BrokenObserver(Noted):
    def began(self, trace: RequestTrace) -> None:
        boom()

    def ended(self, trace: RequestTrace) -> None:
        super().ended(trace)
        boom()


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    """What Serve's logger is given, however it was set up."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("ray.serve").addHandler(handler)
    yield records
    logging.getLogger("ray.serve").removeHandler(handler)


def handler(endpoint: Endpoint, dispatcher: Dispatcher, *, pings: bool = False) -> Inference:
    names, bounds = ModelNames(["smollm2:135m"]), RequestBounds(64, False, 64)
    charges = Charges(build_limiter(LimitSettings()))
    bodies = Bodies(2**20, 9, 9)
    return Inference(endpoint, dispatcher, names, charges, bounds, bodies, pings=pings)


@asynccontextmanager
async def running(
    send: Callable[[Call], Answer],
    *,
    guard: Guard | None = None,
    noted: Noted | None = None,
    goes_on: asyncio.Event | None = None,
    **changes: Any,
) -> AsyncIterator[tuple[httpx.AsyncClient, Noted]]:
    """The API over a real socket, each endpoint with `changes`; `send` gives its answers.

    With `goes_on` the answers wait for it, and streams are pinged.
    """
    noted, dispatcher = noted or Noted(), Dispatcher(send)
    dispatcher.goes_on = goes_on or dispatcher.goes_on

    async def nothing() -> None:
        pass

    routes = [
        Route(
            *("POST", path),
            handler(replace(endpoint, **changes), dispatcher, pings=goes_on is not None),
            "",
        )
        for path, endpoint in ENDPOINTS.items()
    ]
    api = Api(routes, guard or BrokenGuard(), noted, nothing)
    async with (
        listening(api) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=9) as client,
    ):
        yield client, noted


def request(path: str, **more: Any) -> dict[str, Any]:
    return {
        "url": path,
        "json": {**VALID[path], "model": "smollm2:135m", **more},
        "headers": {"x-request-id": "id-of-this-one", "origin": "http://localhost"},
    }


def whole(call: Call) -> Answer:
    return answer(b"application/json", b"{}", broken=False)


LAYERS: dict[str, dict[str, Any]] = {
    "guard, CORS": {"send": whole, "guard": BrokenGuard(cors=boom)},
    "guard, key": {"send": whole, "guard": BrokenGuard(admit=boom)},
    "check": {"send": whole, "local": boom},
    "shape": {"send": whole, "shape": boom},
    "dispatch": {"send": boom},
    "relay": {"send": lambda call: answer(b"application/json", b"{}", broken=True)},
    "proof": {"send": whole, "body_end": boom},
}


@pytest.mark.parametrize("layer", LAYERS)
async def test_a_fault_before_the_answer_is_a_500_in_the_dialect(
    layer: str, log: list[logging.LogRecord]
) -> None:
    """Its words are for the log, which has them under the request's id; the count is its own."""
    async with running(**LAYERS[layer]) as (client, noted):
        for path in ENDPOINTS:
            log.clear()
            answered = await client.post(**request(path))
            assert answered.status_code == 500
            assert PLANTED not in answered.text
            assert message(path, answered.json())
            assert (noted.last.outcome, noted.last.status) == ("internal_error", 500)
            (record,) = log
            assert "id-of-this-one" in record.getMessage()
            assert record.exc_info
            assert PLANTED in str(record.exc_info[1])


def kind(path: str) -> str:
    return "application/x-ndjson" if path.startswith("/api") else "text/event-stream"


FIRST = {
    "text/event-stream": b'data: {"choices": []}\n\n',
    "application/x-ndjson": b'{"done":false}\n',
}


def stream(call: Call, broken: bool = True) -> Answer:
    return answer(kind(call.path).encode(), FIRST[kind(call.path)], broken=broken)


WITHIN: dict[str, dict[str, Any]] = {
    "relay": {"send": stream},
    "proof": {"send": lambda call: stream(call, broken=False), "stream_end": boom},
}


@pytest.mark.parametrize("layer", WITHIN)
async def test_a_fault_within_a_stream_is_its_error_event(
    layer: str, log: list[logging.LogRecord]
) -> None:
    """The status has been sent; the stream says so itself, once, and ends."""
    async with running(**WITHIN[layer]) as (client, noted):
        for path in STREAMED:
            log.clear()
            answered = await client.post(**request(path, stream=True))
            assert answered.status_code == 200
            assert answered.content.startswith(FIRST[kind(path)])
            assert answered.content.count(b"internal error") == 1
            assert noted.last.outcome == "internal_error"
            (record,) = log
            assert record.exc_info
            assert PLANTED in str(record.exc_info[1])


def refused(body: bytes) -> Answer:
    given = answer(b"text/html", body, broken=False)
    given.status = 502
    return given


@pytest.mark.parametrize(
    ("send", "outcome", "sentence"),
    [
        (boom, "internal_error", b"internal error"),
        (lambda call: refused(b"<html>"), "upstream_error", b"the engine's answer can't be read"),
        (lambda call: refused(b"[]"), "upstream_error", b"the engine's answer can't be read"),
    ],
)
async def test_a_fault_after_a_ping_is_an_event(
    send: Callable[[Call], Answer],
    outcome: str,
    sentence: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The status has been sent: the stream says so itself, once, and ends."""
    monkeypatch.setattr(pings, "EVERY_S", 0.01)
    for path in ("/v1/responses", "/v1/messages"):
        goes_on = asyncio.Event()
        async with running(send, goes_on=goes_on) as (client, noted):
            content = b""
            asked = request(path, stream=True)
            async with client.stream("POST", asked.pop("url"), **asked) as answered:
                async for chunk in answered.aiter_bytes():
                    content += chunk
                    goes_on.set()
        assert content.count(sentence) == 1, path
        assert noted.last.outcome == outcome


async def test_a_fault_that_can_not_be_told_breaks_the_answer_off(
    log: list[logging.LogRecord],
) -> None:
    """A connection that closes early is the only way left to say that an answer is not whole."""
    async with running(stream, event=boom) as (client, noted):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(**request("/api/chat"))
    assert noted.last.outcome == "internal_error"


async def test_a_caller_who_can_not_be_received_from_is_gone(
    log: list[logging.LogRecord],
) -> None:
    """Serve's proxy may die with its callers: that is a hang-up, and no fault of the service."""
    noted = Noted()

    async def send(message: Any) -> None:
        raise AssertionError("nobody is left to answer")

    async def nothing() -> None:
        pass

    route = Route("POST", "/api/chat", handler(ENDPOINTS["/api/chat"], Dispatcher(whole)), "")
    api = Api([route], BrokenGuard(), noted, nothing)
    scope = {"type": "http", "method": "POST", "path": "/api/chat", "headers": []}
    await api(scope, boom, send)
    assert noted.last.outcome == "cancelled"
    assert log == []


def test_an_observer_that_fails_costs_no_count(log: list[logging.LogRecord]) -> None:
    """The observers after it are told of the request."""
    noted = Noted()
    Observers(BrokenObserver(), noted).ended(RequestTrace("POST", "/", "ollama", ""))
    assert len(noted.ended_exchanges) == 1
    assert [record.levelname for record in log] == ["ERROR"]


async def test_an_observer_that_fails_costs_no_answer(log: list[logging.LogRecord]) -> None:
    """Neither at the beginning nor at the end of a request."""
    done = {"body_end": lambda _: AnswerEnd(True)}
    async with running(whole, noted=BrokenObserver(), **done) as (client, noted):
        answered = await client.post(**request("/api/chat"))
    assert answered.status_code == 200
    assert noted.last.outcome == "ok"
    assert [record.levelname for record in log] == ["ERROR", "ERROR"]


def test_the_alert_sees_internal_errors() -> None:
    """Beside those of engines; and so does the panel of failures."""
    monitoring = ROOT / "kuberay/monitoring"
    groups = yaml.safe_load((monitoring / "alerts.yaml").read_text())["spec"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    (errors,) = [rule["expr"] for rule in rules if rule["alert"] == "LLMErrors"]
    assert "internal_error" in errors
    assert "|internal_error" in (monitoring / "dashboard.json").read_text()


ODD: list[Any] = [
    *(None, True, 0, -1, 1.5, 1e300, "", "x", "0", [], {}, [[]], [{}], [None], {"": None}),
    *({"a": [1]}, [{"role": 5}], {"type": "json_schema", "json_schema": []}),
    *([[1.5]], {"num_predict": 1e300}, {"NUM_CTX": []}, {"stop": [None, {}, ""]}),
]


@pytest.mark.parametrize("path", ENDPOINTS)
def test_no_value_of_a_caller_is_unexpected(path: str) -> None:
    """Whatever a field holds, it is taken or refused by a ServiceError."""
    endpoint, bounds = ENDPOINTS[path], RequestBounds(64, False, 64)
    for key in sorted(endpoint.keys):
        for value in ODD:
            payload: Payload = {**VALID[path], "model": "smollm2:135m", key: value}
            with suppress(ServiceError):
                endpoint.local(payload)
                endpoint.shape(payload, bounds)
