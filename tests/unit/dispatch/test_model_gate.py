"""A replica with more models than room: what its callers see, and what reaches the engine."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from serve_app.dispatch import model_loader
from serve_app.dispatch.model_gate import ModelGate
from serve_app.engine_settings import EngineSettings
from serve_app.engines import ollama_api
from serve_app.engines.base import Call, Priority
from serve_app.engines.model_store import OllamaModels
from serve_app.engines.preload import Preload, rules_of
from serve_app.pool_settings import Pool
from serve_app.settings import Settings
from tests.support import processes
from tests.support.in_process import Engine, simulated
from tests.support.service import Service, started
from tests.support.waiting import eventually

MODELS = ("a", "b", "c")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_loader, "POLL_S", 0.02)
    monkeypatch.setattr(ollama_api, "POLL_S", 0.002)


@asynccontextmanager
async def serving(*options: str, **changes: Any) -> AsyncIterator[tuple[Service, Engine]]:
    """A service with room for two of three models, before an engine with these options."""
    more = {name: changes.pop(name) for name in ("queue", "queue_timeout_s") if name in changes}
    async with simulated("--models=a,b,c", *options) as engine:
        usual = {"kind": "attach", "url": engine.url, "max_loaded_models": 2, "min_loaded_s": 0}
        built = Settings(models=MODELS, engine=EngineSettings(**{**usual, **changes}), **more)
        async with started(built, engine.reset) as service:
            yield service, engine


def cold_of(engine: Engine) -> str:
    """A model that is not loaded."""
    return next(model for model in MODELS if model not in engine.loaded())


async def ask(service: Service, model: str, tokens: int = 1, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": False}
    return await service.post(
        "/api/chat", json={**body, "options": {"num_predict": tokens}, **more}
    )


async def test_ready_means_that_the_preloaded_models_gave_a_token() -> None:
    """A replica with more models than room is ready with those that fit."""
    async with serving("--max-loaded-models=2") as (service, engine):
        assert (await service.get("/readyz")).status_code == 200
        assert len(engine.loaded()) == 2
        assert engine.stats()["evictions"] == 0


async def test_the_replica_chooses_the_victim_and_the_engine_never_does() -> None:
    """An idle model is unloaded by keep_alive 0 and gone before the cold model's call goes on."""
    async with serving("--max-loaded-models=2", "--unload-s=0.01") as (service, engine):
        for model in "abcabc":
            assert (await ask(service, model)).status_code == 200
            assert model in engine.loaded()
        assert engine.stats()["evictions"] == 0
        assert '"keep_alive":0' in "".join(engine.bodies("/api/generate"))


async def test_calls_for_one_cold_model_are_collected() -> None:
    """Many calls for a cold model cost one load, and none reaches the engine before it."""
    async with serving("--load-s=0.05") as (service, engine):
        cold = cold_of(engine)
        answers = await asyncio.gather(*(ask(service, cold) for _ in range(6)))
        assert [answer.status_code for answer in answers] == [200] * 6
        assert engine.stats()["loads"] == 1
        assert all(answer.json()["load_duration"] < 0.02e9 for answer in answers)


async def test_a_model_in_use_keeps_its_place() -> None:
    """With no idle model the call waits in the replica, and the engine hears nothing of it."""
    async with serving("--decode-tokens-per-s=100", max_loaded_models=1) as (service, engine):
        (warm,), cold = engine.loaded(), cold_of(engine)
        running = asyncio.create_task(ask(service, warm, 15))
        await eventually(lambda: engine.stats()["in_flight"])
        waiting = asyncio.create_task(ask(service, cold))
        assert (await ask(service, warm)).status_code == 200
        assert not [body for body in engine.bodies("/api/chat") if f'"{cold}:' in body]
        assert engine.loaded() == {warm}
        assert (await running).status_code == (await waiting).status_code == 200
        assert engine.loaded() == {cold}


async def test_nobody_waits_beyond_the_bound() -> None:
    """A model that is always in use takes no new calls once another has waited long enough."""
    changes = {"max_loaded_models": 1, "max_load_wait_s": 0.1}
    async with serving("--decode-tokens-per-s=200", **changes) as (service, engine):
        (warm,), cold = engine.loaded(), cold_of(engine)
        is_served = False

        async def keep_busy() -> list[int]:
            statuses = []
            while not is_served:
                statuses.append((await ask(service, warm, 5)).status_code)
            return statuses

        busy = [asyncio.create_task(keep_busy()) for _ in range(3)]
        await eventually(lambda: engine.stats()["in_flight"] == 3)
        async with asyncio.timeout(5):
            assert (await ask(service, cold)).status_code == 200
        is_served = True
        assert {status for task in busy for status in await task} == {200}


async def test_a_load_that_fails_is_an_error_once() -> None:
    """Ollama's words reach the callers; no load is repeated beside the same models."""
    options = ("--memory-mib=1000", "--model-mib=a=300,b=300,c=2000")
    async with serving(*options, demand={"a": 2, "b": 1}) as (service, engine):
        answers = await asyncio.gather(*(ask(service, "c") for _ in range(3)))
        assert [answer.status_code for answer in answers] == [503] * 3
        assert "requires more system memory" in answers[0].text
        for _ in range(3):
            answer = await ask(service, "c")
            assert answer.status_code == 503
        assert "it is tried again in" in answer.text
        assert 20 <= int(answer.headers["retry-after"]) <= 30
        loads = [body for body in engine.bodies("/api/generate") if '"prompt"' in body]
        assert len([body for body in loads if '"c:latest"' in body]) == 2  # beside one, and alone
        await eventually(lambda: engine.loaded() == {"a", "b"})  # what went for it is back


async def test_an_engine_that_breaks_off_a_load_fails_it() -> None:
    """As one that the kernel killed for memory: the caller is told, the next load may pass."""
    async with serving() as (service, engine):
        cold = cold_of(engine)
        await engine.fault(kind="cut", times=2, path="/api/generate")  # an unload and a load
        assert (await ask(service, cold)).status_code == 503
        assert (await ask(service, cold)).status_code == 200


async def test_what_the_engine_unloads_by_itself_is_loaded_again() -> None:
    """As after its restart: no user's call waits for a load that could have been before."""
    async with serving() as (service, engine):
        before = engine.loaded()
        await engine.generate(min(before), keep_alive=0)
        await eventually(lambda: engine.stats()["loads"] == 1)
        await eventually(lambda: engine.loaded() == before)
        cards = (await service.get("/api/ps")).json()["models"]
        assert {card["name"].removesuffix(":latest") for card in cards} == before


async def test_a_model_that_another_client_loads_takes_room() -> None:
    """It is learned from the list of the engine, which from then on evicts nothing."""
    async with serving("--max-loaded-models=2") as (service, engine):
        first, cold = min(engine.loaded()), cold_of(engine)
        await engine.generate(first, keep_alive=0)
        await engine.generate(cold)
        await eventually(lambda: f"{cold}:latest" in shown(service))
        evictions = engine.stats()["evictions"]
        for model in MODELS:
            assert (await ask(service, model)).status_code == 200
        assert engine.stats()["evictions"] == evictions


def shown(service: Service) -> set[str]:
    return {card.name for card in service.engine.status.models if card.loaded}


async def test_a_caller_that_leaves_leaves_nothing_behind() -> None:
    """After hang-ups during a load the next caller is served, and the model can be unloaded."""
    async with serving("--load-s=0.05", max_loaded_models=1) as (service, engine):
        (warm,), cold = engine.loaded(), cold_of(engine)
        calls = [asyncio.create_task(ask(service, cold)) for _ in range(3)]
        await eventually(lambda: service.noted.running == 3)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await eventually(lambda: not service.noted.running)
        assert (await ask(service, cold)).status_code == 200
        assert (await ask(service, warm)).status_code == 200


async def test_the_line_of_a_cold_model_is_bounded() -> None:
    """Calls above the queue are refused at once, those in it when the wait is over."""
    changes = {"max_loaded_models": 1, "queue": 2, "queue_timeout_s": 0.1}
    async with serving("--decode-tokens-per-s=20", **changes) as (service, engine):
        (warm,), cold = engine.loaded(), cold_of(engine)
        busy = asyncio.create_task(ask(service, warm, 60))
        await eventually(lambda: engine.stats()["in_flight"] == 1)
        answers = await asyncio.gather(*(ask(service, cold) for _ in range(4)))
        assert [answer.status_code for answer in answers] == [503] * 4
        assert sum("was not loaded within 0.1 s" in answer.text for answer in answers) == 2
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
        assert not [body for body in engine.bodies("/api/chat") if f'"{cold}:' in body]


async def test_an_embedding_model_gets_one_call_at_a_time() -> None:
    """Ollama gives it one slot: the others wait with us, and leave the slots to other models."""
    options = ("--embed-models=c", "--prefill-tokens-per-s=100")
    async with serving(*options, max_loaded_models=0) as (service, engine):
        body = {"model": "c", "input": "one two three"}
        answers = asyncio.gather(*(service.post("/api/embed", json=body) for _ in range(4)))
        await eventually(lambda: engine.stats()["in_flight"])
        assert (await ask(service, "a")).status_code == 200
        assert [answer.status_code for answer in await answers] == [200] * 4
        assert engine.stats()["max_queued"] == 0


async def test_gateways_are_told_what_loads_would_cost() -> None:
    """A loaded model has no cost; the callback comes when that changes."""
    async with simulated("--models=a,b,c") as engine:
        settings = EngineSettings(kind="attach", url=engine.url, max_loaded_models=2)
        pool = Pool(models=MODELS, engine=settings.model_copy(update={"min_loaded_s": 0}))
        store = OllamaModels(lambda: engine.url, pool.models)
        names = [f"{model}:latest" for model in MODELS]
        waits = dict.fromkeys(Priority, 9.0)
        gate = ModelGate(names, store, rules_of(pool), 9, waits, never, Preload())
        changes: list[dict[str, float]] = []
        gate.on_change = lambda: changes.append(gate.load_costs())
        await gate.start()
        try:
            assert changes[-1].keys() == set(names)
            for name in names:
                (await gate.enter(Call("/api/chat", name, b"{}", stream=True)))(None)
                assert name not in changes[-1]
        finally:
            await gate.close()
        assert changes[-1].keys() == set(names) - {f"{model}:latest" for model in engine.loaded()}


async def never() -> None:
    raise AssertionError("the engine runs")


async def test_a_restarted_engine_loads_what_it_had() -> None:
    """Not what it loaded at its first start: the next call finds its model there."""
    engine = EngineSettings(kind="simulated", max_loaded_models=1, min_loaded_s=0)
    async with started(Settings(models=MODELS, engine=engine)) as service:
        assert (await ask(service, "c")).status_code == 200
        (pid,) = [
            pid
            for pid in processes.descendants(os.getpid())
            if "serve_app.simulator" in processes.own_command(pid)
            and f"--port {service.engine.status.url.rpartition(':')[2]}"
            in processes.own_command(pid)
        ]
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: service.engine.status.restarts)
        answer = await ask(service, "c")
        assert answer.status_code == 200
        async with httpx.AsyncClient(base_url=service.engine.status.url, trust_env=False) as http:
            assert (await http.get("/_sim/stats")).json()["loads"] == 1
