"""The life of an engine survives whatever answers in its place: one more failed start, logged."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from serve_app.engine_settings import EngineSettings
from serve_app.engines import lifecycle, ollama_start
from serve_app.engines.base import ModelCard, State
from serve_app.engines.choose import EngineChoice, choose_engine, new_engine
from serve_app.engines.driver import EngineInfo, LaunchSpec, StartTimer
from serve_app.engines.http1 import HttpClient
from serve_app.engines.lifecycle import Lifecycle
from serve_app.errors import EngineDown, EngineError, EngineStartError
from serve_app.pool_settings import Pool
from serve_app.ray_serve.engine_host import EngineHost
from serve_app.settings import Settings
from tests.support.odd_server import MODEL, ODD, ODD_LISTINGS, answer, odd_server, ollama
from tests.support.waiting import eventually

LISTING = answer(b'{"models":[]}')


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "MAX_BACKOFF_S", 0.001)
    monkeypatch.setattr(lifecycle, "PROBE_EVERY_S", 0.001)
    monkeypatch.setattr(ollama_start, "POLL_S", 0.001)


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    """Serve's, however it was set up."""
    records: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("ray.serve")
    handler.emit = records.append  # type: ignore[method-assign]
    level, logger.level = logger.level, logging.INFO
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


def attach_pool(url: str) -> Pool:
    return Pool(engine=EngineSettings(kind="attach", url=url))


@asynccontextmanager
async def attached(url: str) -> AsyncIterator[Lifecycle]:
    async with HttpClient() as http:
        engine = new_engine(EngineChoice(attach_pool(url), "a test"), http, 9)
        try:
            yield engine
        finally:
            await engine.stop()  # raises nothing, whatever has happened


PLACES = [
    *((path, name) for path in ("/api/version", "/api/tags") for name in ODD),
    *((path, name) for path in ("/api/show", "/api/generate") for name in list(ODD)[:6]),
    *((path, name) for path in ("/api/tags", "/api/ps") for name in ODD_LISTINGS),
    ("/api/generate", "no listing"),
]
# Before an engine is up these are no reason to give up.
UNTIL_UP = [("/api/version", name) for name in ("a failure", "no HTTP", "a closed connection")]


@pytest.mark.parametrize(("path", "odd"), [place for place in PLACES if place not in UNTIL_UP])
async def test_a_start_that_meets_something_else_fails_with_its_cause(
    path: str, odd: str, log: list[logging.LogRecord]
) -> None:
    """After three starts whoever waits is told; each has a line in the log."""
    answers = ollama() | {path: (ODD | ODD_LISTINGS)[odd]}
    async with odd_server(answers) as url, attached(url) as engine:
        async with asyncio.timeout(5):
            with pytest.raises(EngineStartError) as failed:
                await engine.ready()
    lines = [record.getMessage() for record in log]
    assert len(lines) == 3
    assert all(str(failed.value) in line for line in lines)
    assert not any(record.exc_info and record.exc_info[0] for record in log)


@pytest.mark.parametrize(("path", "odd"), UNTIL_UP)
async def test_an_engine_that_may_still_come_is_awaited(
    path: str, odd: str, log: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it answers meanwhile is in the log."""
    monkeypatch.setattr(ollama_start, "WAITING_EVERY_S", 0)
    answers = ollama() | {path: ODD[odd]}
    async with odd_server(answers) as url, attached(url) as engine:
        ready = asyncio.ensure_future(engine.ready())
        await eventually(lambda: log)
        assert "waiting for" in log[0].getMessage()
        assert not log[0].getMessage().endswith(": ")
        answers |= ollama()
        await ready


@pytest.mark.parametrize("odd", [*ODD, *ODD_LISTINGS])
async def test_a_probe_that_meets_something_else_is_a_loss(odd: str) -> None:
    """The engine is away until it answers as before; then it is ready again."""
    answers = ollama()
    async with odd_server(answers) as url, attached(url) as engine:
        await engine.ready()
        answers["/api/ps"] = (ODD | ODD_LISTINGS)[odd]
        await eventually(lambda: engine.status.state is not State.READY)
        answers |= ollama()
        await eventually(lambda: engine.status.state is State.READY)
        await engine.ready()


@pytest.mark.parametrize(
    ("path", "reply", "phase"),
    [("/api/version", ODD["a failure"], "up"), ("/api/tags", LISTING, "pull")],
)
async def test_a_start_that_takes_too_long_says_where(path: str, reply: bytes, phase: str) -> None:
    """Waiting to be up, for a model, or for its load."""
    async with odd_server(ollama() | {path: reply}) as url:
        pool = Pool(engine=EngineSettings(kind="attach", url=url, start_timeout_s=0.05))
        async with HttpClient() as http:
            engine = new_engine(EngineChoice(pool, "a test"), http, 9)
            with pytest.raises(EngineStartError, match=f"not ready within .*'{phase}'"):
                await engine.ready()
            await engine.stop()


async def test_a_model_that_is_deleted_while_it_is_loaded_fails_the_start() -> None:
    """Between two calls anything may happen to an Ollama that others use."""
    listings = iter([ollama()["/api/tags"], LISTING] * 3)
    answers: Any = ollama() | {"/api/tags": lambda: next(listings)}
    async with odd_server(answers) as url, attached(url) as engine:
        with pytest.raises(EngineStartError, match="no longer lists smollm2:135m"):
            await engine.ready()


async def test_odd_values_in_a_listing_are_not_taken_over() -> None:
    """What the service calculates with is of the right type."""
    odd = {**MODEL, "size": None, "modified_at": "yesterday", "details": [], "capabilities": None}
    tags = answer(str({"models": [odd]}).replace("'", '"').replace("None", "null").encode())
    async with odd_server(ollama() | {"/api/tags": tags}) as url, attached(url) as engine:
        await engine.ready()
        (card,) = engine.status.models
    assert (card.size, card.family, card.capabilities) == (0, "", ("completion",))
    assert card.modified_at == "1970-01-01T00:00:00Z"


PULLS = {
    "a login page": ODD["a login page"],
    "nothing": ODD["nothing"],
    "a failure": answer(b'{"error":"disk full"}', status=500),
    "a list": answer(b'{"status":"pulling manifest"}\n[]\n{"status":"success"}\n'),
    "an error that is null": answer(b'{"error":null}\n'),
    "half of it": answer(b'{"status":"pulling","completed":null,"total":"x"}\n{"status":"succ'),
    "no end": answer(b'{"status":"pulling manifest"}\n'),
    "a success without a model": answer(b'{"status":"success"}\n'),
}


@pytest.mark.parametrize("odd", PULLS)
async def test_a_pull_that_goes_wrong_fails_the_start(odd: str) -> None:
    """Only "success", and the model in the listing, say that it is there."""
    answers = ollama() | {"/api/tags": LISTING, "/api/pull": PULLS[odd]}
    async with odd_server(answers) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        with pytest.raises(EngineStartError, match=r"smollm2:135m"):
            await ollama_start.prepare(http, StartTimer(), ["smollm2:135m"], pull=True, wait=False)


@pytest.mark.parametrize("odd", [*ODD, *ODD_LISTINGS])
async def test_auto_takes_no_stranger_for_an_ollama(
    odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever listens at OLLAMA_HOST, the choice is made."""
    answers = {"/api/tags": (ODD | ODD_LISTINGS)[odd]}
    async with odd_server(answers) as url:
        monkeypatch.setenv("OLLAMA_HOST", url)
        chosen = await choose_engine(Pool(engine=EngineSettings(binary="no-such-binary")))
    assert chosen.pool.engine.kind == "llamacpp"
    assert "does not answer" in chosen.reason


class Broken:
    """A kind of engine with a fault that nobody foresaw in `where`."""

    name = "broken engine"
    patience_s = 0.0

    def __init__(self, where: str) -> None:
        self._where = where
        self.probes = 0

    def _pass(self, place: str) -> None:
        if place == self._where:
            raise LookupError(f"planted in {place}")

    def launch_spec(self) -> LaunchSpec:
        self._pass("plan")
        return LaunchSpec("http://\0" if self._where == "address" else "http://127.0.0.1:9")

    async def prepare(self, http: httpx.AsyncClient, timer: StartTimer) -> EngineInfo:
        self._pass("prepare")
        return EngineInfo("", (ModelCard("m"),))

    async def probe(self, http: httpx.AsyncClient) -> None:
        self.probes += 1
        self._pass("probe")

    def client(self, url: str, info: EngineInfo) -> Any:
        self._pass("client")
        return None


@pytest.mark.parametrize("where", ["plan", "address", "prepare", "client"])
async def test_an_unforeseen_fault_of_a_start_is_logged_with_its_traceback(
    where: str, log: list[logging.LogRecord]
) -> None:
    """And is one more failed start, as any other."""
    engine = Lifecycle(Broken(where), 9, 9)
    async with asyncio.timeout(5):
        with pytest.raises(EngineStartError):
            await engine.ready()
    await engine.stop()
    with pytest.raises(EngineDown):
        await engine.ready()
    assert [bool(record.exc_info) for record in log] == [True] * 3


async def test_an_unforeseen_fault_of_a_probe_is_logged_and_a_loss(
    log: list[logging.LogRecord],
) -> None:
    """Probes go on."""
    kind = Broken("probe")
    engine = Lifecycle(kind, 9, 9)
    await engine.ready()
    await eventually(lambda: kind.probes > 2)
    await engine.stop()
    assert engine.status.state is State.STOPPED
    assert any(record.exc_info and "planted" in str(record.exc_info[1]) for record in log)


async def test_a_replica_that_can_not_start_leaves_nothing_open() -> None:
    """Its engine is stopped and its connections are closed."""
    closed = []

    class Http(HttpClient):
        async def close(self) -> None:
            closed.append(True)

    async with odd_server(ollama() | {"/api/tags": ODD["a login page"]}) as url:
        pool = attach_pool(url)
        replica = EngineHost(Settings(engine=pool.engine), pool, lambda status: None)
        replica._http = Http()
        with pytest.raises(EngineError):
            await replica.start()
    assert closed
