"""The simulator's models and their room, as Ollama's scheduler treats them."""

import asyncio
from contextlib import AbstractAsyncContextManager

from tests.support.simulator_client import Simulator, client_of, user


def simulator(*options: str) -> AbstractAsyncContextManager[Simulator]:
    return client_of("serve_app.simulator", "--models=a,b,c", *options)


async def loaded(sim: Simulator) -> set[str]:
    return {model["name"].removesuffix(":latest") for model in (await sim.get("/api/ps"))["models"]}


async def load(sim: Simulator, model: str, **body: object) -> None:
    await sim.post("/api/generate", model=model, **body)


async def test_the_idle_model_of_shortest_keep_alive_makes_room() -> None:
    """Where the room is full, Ollama unloads by keep-alive, whichever was used last."""
    async with simulator("--max-loaded-models=2") as sim:
        await load(sim, "a", keep_alive=60)
        await load(sim, "b", keep_alive=-1)
        await load(sim, "a")
        await load(sim, "c")
        assert await loaded(sim) == {"b", "c"}
        stats = await sim.stats()
        assert (stats["loads"], stats["evictions"]) == (3, 1)


async def test_among_equals_the_path_decides() -> None:
    """Two models take turns where a third is kept whose path comes later."""
    async with simulator("--max-loaded-models=2") as sim:
        digests = {m["name"][0]: m["digest"] for m in (await sim.get("/api/tags"))["models"]}
        first, second, last = sorted("abc", key=lambda name: digests[name])
        for model in (last, first, second, first, second):
            await load(sim, model)
        assert await loaded(sim) == {second, last}


async def test_with_none_idle_a_cold_model_waits_and_is_overtaken() -> None:
    """Requests of the loaded model go on, and the cold model waits until it is idle."""
    async with simulator("--max-loaded-models=1", "--decode-tokens-per-s=50") as sim:
        await load(sim, "a")
        slow = asyncio.create_task(sim.chat(model="a", tokens=15))
        await sim.until(lambda stats: stats["in_flight"] == 1)
        cold = asyncio.create_task(sim.chat(model="b", tokens=1))
        await sim.until(lambda stats: stats["evictions"] == 1)
        await sim.chat(model="a", tokens=1)
        assert not cold.done()
        await slow
        await cold
        assert await loaded(sim) == {"b"}


async def test_memory_and_load_time_follow_the_size() -> None:
    """A model that fits beside no other evicts it, and takes its MiB over the rate to load."""
    async with simulator(
        "--memory-mib=1000", "--model-mib=a=600,b=500,c=2000", "--load-mib-per-s=5000"
    ) as sim:
        await load(sim, "a")
        answer = await sim.chat(model="b")
        assert answer["load_duration"] >= 0.1e9
        (model,) = (await sim.get("/api/ps"))["models"]
        assert (model["name"], model["size"]) == ("b:latest", 500 << 20)


async def test_a_model_that_can_never_fit_is_an_error() -> None:
    """Ollama reports the memory that it lacks, and unloads nothing."""
    async with simulator("--memory-mib=1000", "--model-mib=a=600,c=2000") as sim:
        await load(sim, "a")
        answer = await sim.post("/api/generate", model="c", prompt="x", stream=False)
        assert answer["error"] == (
            "model requires more system memory (2000 MiB) than is available (1000 MiB)"
        )
        assert await loaded(sim) == {"a"}


async def test_a_disconnect_aborts_the_load() -> None:
    """The load of a caller that has left does not go on."""
    async with simulator("--load-s=30") as sim:
        caller = await sim.open("/api/chat", model="a", messages=[user("x")])
        await sim.until(lambda stats: stats["requests"].get("/api/chat") == 1)
        caller.close()
        stats = await sim.until(lambda stats: stats["aborts"] == 1)
        assert stats["loads"] == 0


async def test_slots_are_counted_by_model() -> None:
    """Each loaded model has its slots, and one that only embeds has a single one."""
    options = ("--slots=2", "--decode-tokens-per-s=50", "--embed-models=c")
    async with simulator(*options, "--prefill-tokens-per-s=50") as sim:
        chats = [asyncio.create_task(sim.chat(model=m, tokens=5)) for m in "aaabb"]
        stats = await sim.until(lambda stats: stats["in_flight"] == 4)
        assert stats["queued"] == 1
        await asyncio.gather(*chats)
        await sim.http.post(sim.url + "/_sim/reset")
        await asyncio.gather(*(sim.post("/api/embed", model="c", input="x") for _ in range(3)))
        assert (await sim.stats())["max_in_flight"] == 1


async def test_an_unloaded_model_has_lost_its_caches() -> None:
    """A prompt is evaluated again after its model was unloaded and loaded."""
    async with simulator() as sim:
        for _ in range(2):
            await sim.chat("one two three", model="a")
        cached = (await sim.stats())["cached_tokens"]
        await load(sim, "a", keep_alive=0)
        await sim.chat("one two three", model="a")
        assert (await sim.stats())["cached_tokens"] == cached == 2
