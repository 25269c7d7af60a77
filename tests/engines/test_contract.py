"""One contract for every kind of engine: start, ready, serve, stream, crash, restart, stop."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import pytest

from serve_app.engine_settings import EngineSettings, SimulatedSpeed
from serve_app.engines import ollama_start
from serve_app.engines.base import Call, State
from serve_app.engines.choose import choose_engine, new_engine
from serve_app.engines.http1 import HttpClient
from serve_app.engines.lifecycle import Lifecycle
from serve_app.engines.llamacpp.gguf.card import find_smollm2
from serve_app.engines.process import free_port
from serve_app.errors import BadRequest, EngineDown, EngineError, EngineStartError, SettingsError
from serve_app.pool_settings import Pool
from tests.support import processes
from tests.support.service import start_simulator
from tests.support.waiting import eventually

MODEL = "smollm2:135m"
FAKE = Path(__file__).parents[1] / "support" / "fake_ollama.py"
OWNED = ["simulated", "ollama", "real ollama", "llamacpp"]
REAL_OLLAMA = os.environ.get("SERVE_APP_TEST_OLLAMA") or shutil.which("ollama")


@dataclass
class Rig:
    """One kind of engine, as settings; `env` is what the stand-in for Ollama is told."""

    kind: str
    settings: dict[str, object] = field(default_factory=dict)

    def pool(self, **changes: object) -> Pool:
        engine = {"kind": self.kind, "slots": 2, "context_length": 512, "stop_grace_s": 2}
        return Pool(models=(MODEL,), engine=EngineSettings(**(engine | self.settings | changes)))


@pytest.fixture(scope="session")
def fake_ollama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An executable `ollama` that behaves as the real one does."""
    script = tmp_path_factory.mktemp("bin") / "ollama"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    script.chmod(0o755)
    return script


MODELFILE = """\
FROM {path}
TEMPLATE "{{{{ range .Messages }}}}<|im_start|>{{{{ .Content }}}}<|im_end|>{{{{ end }}}}"
"""


@contextmanager
def real_server(models: Path) -> Iterator[dict[str, str]]:
    """A real `ollama serve` that keeps its models in `models`; gives its environment."""
    own = {"OLLAMA_HOST": f"127.0.0.1:{free_port()}", "OLLAMA_MODELS": str(models)}
    env = {**os.environ, **own, "HOME": str(models), "OLLAMA_NO_CLOUD": "1"}
    assert REAL_OLLAMA
    server = subprocess.Popen([REAL_OLLAMA, "serve"], env=env, stderr=subprocess.DEVNULL)
    try:
        yield env
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def real_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder of a real Ollama, with the embedded model in it; nothing is downloaded."""
    if not REAL_OLLAMA:
        pytest.skip("no ollama on PATH, nor in SERVE_APP_TEST_OLLAMA")
    folder = tmp_path_factory.mktemp("models")
    modelfile = folder / "Modelfile"
    modelfile.write_text(MODELFILE.format(path=find_smollm2()))
    create = [REAL_OLLAMA, "create", MODEL, "-f", str(modelfile)]
    with real_server(folder) as env:
        for _ in range(100):  # until it listens
            if subprocess.run(create, env=env, capture_output=True, check=False).returncode == 0:
                return folder
    raise AssertionError("ollama create did not succeed")


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    kind = request.param
    if kind == "ollama":
        fake = request.getfixturevalue("fake_ollama")
        yield Rig(kind, {"binary": str(fake), "env": {"FAKE_OLLAMA_MODELS": MODEL}})
    elif kind == "real ollama":
        models = request.getfixturevalue("real_models")
        env = {"OLLAMA_NO_CLOUD": "1", "HOME": str(models)}
        yield Rig("ollama", {"binary": REAL_OLLAMA, "models_dir": models, "env": env})
    elif kind == "real attach":
        with real_server(request.getfixturevalue("real_models")) as env:
            yield Rig("attach", {"url": f"http://{env['OLLAMA_HOST']}"})
    elif kind == "attach":
        simulator = start_simulator("--decode-tokens-per-s", "500")
        yield Rig(kind, {"url": simulator.url})
        simulator.stop()
    elif kind == "simulated":
        yield Rig(kind, {"simulated": SimulatedSpeed(decode_tokens_per_s=500)})
    else:
        yield Rig(kind)


@asynccontextmanager
async def running(pool: Pool) -> AsyncIterator[Lifecycle]:
    session = HttpClient()
    engine = new_engine(await choose_engine(pool), session, first_token_timeout_s=20)
    try:
        yield engine
    finally:
        await engine.stop()
        await session.close()


def chat(tokens: int, stream: bool = True) -> Call:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Count to one hundred."}],
        "stream": stream,
        "options": {"num_predict": tokens, "temperature": 0},
    }
    return Call("/api/chat", MODEL, orjson.dumps(body), stream)


async def text_of(engine: Lifecycle, call: Call) -> bytes:
    answer = await engine.send(call)
    try:
        assert answer.status == 200
        return b"".join([piece async for piece in answer.body])
    finally:
        answer.close()


def engine_processes() -> list[int]:
    """The guards that this process has started, and all below them."""
    guards = [p for p in processes.children(os.getpid()) if "supervisor.py" in processes.command(p)]
    return [p for guard in guards for p in (guard, *processes.descendants(guard))]


def crash() -> None:
    """Kill the engine itself, as the kernel's OOM killer would."""
    (guard, *_) = [p for p in engine_processes() if "supervisor.py" in processes.command(p)]
    os.kill(processes.children(guard)[0], signal.SIGKILL)


async def until(state: State, engine: Lifecycle) -> None:
    await eventually(lambda: engine.status.state is state)


@pytest.mark.parametrize("rig", [*OWNED, "attach", "real attach"], indirect=True)
async def test_ready_means_that_it_serves(rig: Rig) -> None:
    """Once `ready` returns, the model is loaded and answers come, streamed and whole."""
    async with running(rig.pool()) as engine:
        assert engine.status.state is State.STARTING
        await engine.ready()
        status = engine.status
        assert (status.state, status.models[0].name) == (State.READY, MODEL)
        assert {name for name, _ in status.phases} >= {"up", "load"}
        lines = (await text_of(engine, chat(5))).splitlines()
        assert orjson.loads(lines[-1])["eval_count"] == 5
        whole = orjson.loads(await text_of(engine, chat(5, stream=False)))
        assert (whole["done"], whole["eval_count"]) == (True, 5)


@pytest.mark.parametrize("rig", [*OWNED, "attach", "real attach"], indirect=True)
async def test_streams_come_as_they_are_made(rig: Rig) -> None:
    """The first piece is there before the last one is made: closing then stops the engine."""
    async with running(rig.pool()) as engine:
        await engine.ready()
        answer = await engine.send(chat(400))
        assert b'"done":true' not in await anext(answer.body)
        answer.close()
        assert await text_of(engine, chat(1))


async def test_the_embedded_engine_serves_any_gguf_by_its_path(tmp_path: Path) -> None:
    """Under the name that is configured, in every dialect, and never under its path."""
    copy = tmp_path / "mine.gguf"
    copy.symlink_to(find_smollm2())
    settings = EngineSettings(kind="llamacpp", model_path=copy, slots=1, context_length=512)
    async with running(Pool(models=("mine",), engine=settings)) as engine:
        await engine.ready()
        call = Call("/v1/completions", "mine:latest", b'{"prompt":"a","max_tokens":1}', False)
        answered = await text_of(engine, call)
        shown = await text_of(engine, Call("/api/show", "mine:latest", b"{}", False))
    assert orjson.loads(answered)["model"] == "mine:latest"
    assert b"gguf" not in answered + shown.replace(b'"format":"gguf"', b"")


async def test_no_model_is_served_under_the_name_of_another() -> None:
    """The embedded engine has one model; what it does not have is named."""
    pool = Pool(models=("llama3.2:3b",), engine=EngineSettings(kind="llamacpp"))
    async with running(pool) as engine:
        with pytest.raises(SettingsError, match=r"has smollm2:135m, not llama3\.2:3b"):
            await engine.ready()


async def test_a_pull_tells_how_it_gets_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fake_ollama: Path
) -> None:
    """Bytes, share and seconds, while it lasts."""
    monkeypatch.setattr(ollama_start, "PROGRESS_EVERY_S", 0.05)
    with caplog.at_level("INFO", logger="ray.serve"):
        async with running(ollama(fake_ollama, models="")) as engine:
            await engine.ready()
    assert re.search(r"pulling smollm2:135m: \d of 1 MB \(\d+ %\), \d+ s", caplog.text)
    assert "pulled smollm2:135m" in caplog.text


async def test_the_embedded_engine_answers_nobody_else() -> None:
    """Its port can be found: without its key no page and no other process may use it."""
    async with running(Rig("llamacpp").pool()) as engine, aiohttp.ClientSession() as session:
        await engine.ready()
        for path in ("/v1/chat/completions", "/completion", "/v1/embeddings", "/v1/messages"):
            async with session.post(engine.status.url + path, json={"prompt": "a"}) as answer:
                assert answer.status == 401
        origin = {"Origin": "http://evil.example"}
        async with session.get(f"{engine.status.url}/props", headers=origin) as answer:
            assert answer.status == 401
            assert answer.headers.get("Access-Control-Allow-Origin") != origin["Origin"]


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
MISTAKES = [
    ("/v1/chat/completions", {"messages": [{"content": "x"}], "tools": 1}),
    ("/v1/messages", {"messages": [{"role": "user", "content": [IMAGE]}]}),
    ("/v1/embeddings", {"input": ["word", None]}),
]


@pytest.mark.parametrize(("path", "body"), MISTAKES)
async def test_mistakes_that_llamacpp_calls_its_own_are_the_callers(
    path: str, body: dict[str, object]
) -> None:
    """It says 500 of them, in OpenAI's shape everywhere; the caller's dialect says 400."""
    async with running(Rig("llamacpp").pool()) as engine:
        await engine.ready()
        with pytest.raises(BadRequest):
            await engine.send(Call(path, MODEL, orjson.dumps({"model": MODEL, **body}), False))


@pytest.mark.parametrize("rig", OWNED, indirect=True)
async def test_a_crash_is_followed_by_a_restart(rig: Rig) -> None:
    """A killed engine is back and loaded by itself, and nothing of the old one is left."""
    async with running(rig.pool()) as engine:
        await engine.ready()
        before = engine_processes()
        crash()
        await until(State.DOWN, engine)
        with pytest.raises(EngineError):
            await engine.send(chat(1))
        await engine.ready()
        assert engine.status.restarts == 1
        assert engine.status.down_for_s == 0
        assert await text_of(engine, chat(2))
        assert processes.gone(before)


@pytest.mark.parametrize("rig", OWNED, indirect=True)
async def test_stop_leaves_nothing(rig: Rig) -> None:
    """Stopping ends all its processes, and may be asked for twice."""
    async with running(rig.pool()) as engine:
        await engine.ready()
        started = engine_processes()
        assert len(started) >= 2
        await engine.stop()
        await engine.stop()
        assert processes.gone(started)
        with pytest.raises(EngineDown):
            await engine.ready()


REPLICA = """
import asyncio, sys
from serve_app.engines.choose import choose_engine, new_engine
from serve_app.engines.http1 import HttpClient
from serve_app.pool_settings import Pool

async def main():
    pool = Pool.model_validate_json(sys.argv[1])
    engine = new_engine(await choose_engine(pool), HttpClient(), 20)
    await engine.ready()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("rig", OWNED, indirect=True)
def test_a_killed_replica_leaves_no_orphan(rig: Rig) -> None:
    """SIGKILL of the owner takes the engine and its children along."""
    command = [sys.executable, "-c", REPLICA, rig.pool().model_dump_json()]
    replica = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert replica.stdout
        assert replica.stdout.readline() == "ready\n"
        started = processes.descendants(replica.pid)
        assert len(started) >= 2
    finally:
        replica.kill()
        replica.communicate()
    assert processes.gone(started)


async def test_attach_waits_for_its_engine_and_finds_it_again() -> None:
    """An attached engine that goes is waited for, and loaded anew when it is back."""
    simulator = start_simulator()
    port = simulator.url.rpartition(":")[2]
    async with running(Rig("attach", {"url": simulator.url}).pool()) as engine:
        await engine.ready()
        simulator.stop()
        with pytest.raises(EngineDown):
            await engine.send(chat(1))
        assert engine.status.state is State.DOWN
        waiting = asyncio.create_task(engine.ready())
        simulator = start_simulator("--port", port)
        await waiting
        assert simulator.reached["/api/generate"] == 1
        assert await text_of(engine, chat(2))
    assert simulator.process.poll() is None, "stopping must leave what it does not own"
    simulator.stop()


async def test_attach_waits_for_a_model_that_somebody_else_pulls() -> None:
    """Not having the model yet is no failure: another container may be pulling it."""
    simulator = start_simulator("--pull-s", "0")
    pool = Pool(models=("late",), engine=EngineSettings(kind="attach", url=simulator.url))
    async with running(pool) as engine:
        waiting = asyncio.create_task(engine.ready())
        await eventually(lambda: simulator.stats()["requests"].get("/api/tags"))
        async with aiohttp.ClientSession() as session:
            assert not waiting.done()
            await (await session.post(f"{simulator.url}/api/pull", json={"model": "late"})).read()
        await waiting
        assert [card.name for card in engine.status.models] == ["late:latest"]
    simulator.stop()


async def test_ollama_gets_its_settings(
    fake_ollama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Address, slots, context, models folder, cache bound, Ray's GPUs, and what is added."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")  # as Ray sets it for a replica
    seen = tmp_path / "seen"
    env = {"FAKE_OLLAMA_MODELS": MODEL, "FAKE_OLLAMA_SEEN": str(seen), "OLLAMA_DEBUG": "1"}
    rig = Rig("ollama", {"binary": str(fake_ollama), "env": env, "models_dir": tmp_path})
    async with running(rig.pool(cache_ram_mib=7)) as engine:
        await engine.ready()
        given = json.loads(seen.read_text())
        assert given["OLLAMA_HOST"] == engine.status.url.removeprefix("http://")
    assert given["OLLAMA_HOST"].startswith("127.0.0.1:")
    assert given["OLLAMA_NUM_PARALLEL"] == "2"
    assert given["OLLAMA_CONTEXT_LENGTH"] == "512"
    assert given["OLLAMA_KEEP_ALIVE"] == "-1"
    assert given["OLLAMA_MODELS"] == str(tmp_path)
    assert given["LLAMA_ARG_CACHE_RAM"] == "7"
    assert given["OLLAMA_DEBUG"] == "1"
    assert given["CUDA_VISIBLE_DEVICES"] == "3,5"


def ollama(fake: Path, behaviour: str = "", models: str = MODEL, **settings: object) -> Pool:
    env = {"FAKE_OLLAMA": behaviour, "FAKE_OLLAMA_MODELS": models}
    return Rig("ollama", {"binary": str(fake), "env": env, **settings}).pool()


async def test_a_missing_model_is_pulled(fake_ollama: Path) -> None:
    """What Ollama does not have is pulled before it is ready, and the time is told."""
    async with running(ollama(fake_ollama, models="")) as engine:
        await engine.ready()
        assert dict(engine.status.phases)["pull"] > 0.2


async def test_a_pull_can_be_forbidden(fake_ollama: Path) -> None:
    """Then a missing model is named at once, and nothing is started again."""
    async with running(ollama(fake_ollama, models="other", pull=False)) as engine:
        with pytest.raises(SettingsError, match=MODEL):
            await engine.ready()
    assert processes.gone(engine_processes())


async def test_a_slow_start_is_waited_for(fake_ollama: Path) -> None:
    """Within its bound an engine may take its time."""
    async with running(ollama(fake_ollama, "slow")) as engine:
        await engine.ready()
        assert (engine.status.state, engine.status.restarts) == (State.READY, 0)


async def test_an_early_exit_is_told_in_its_own_words(fake_ollama: Path) -> None:
    """After a few tries the error says what the engine said last."""
    async with running(ollama(fake_ollama, "exit")) as engine:
        with pytest.raises(EngineStartError, match=r"code 1: .*address already in use"):
            await engine.ready()


async def test_a_hanging_start_is_given_up(fake_ollama: Path) -> None:
    """What does not listen within its bound is ended."""
    async with running(ollama(fake_ollama, "hang", start_timeout_s=0.2)) as engine:
        with pytest.raises(EngineStartError, match=r"not ready within 0\.2 s"):
            await engine.ready()
    assert processes.gone(engine_processes())


async def test_a_missing_executable_is_named() -> None:
    """The setting and the name stand in the error."""
    async with running(Rig("ollama", {"binary": "no-such-ollama"}).pool()) as engine:
        with pytest.raises(SettingsError, match=r"engine\.binary: .*no-such-ollama"):
            await engine.ready()


class TestAuto:
    """`auto` takes what is there and has every model, and says why."""

    @pytest.fixture(autouse=True)
    def nothing_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
        monkeypatch.setenv("PATH", "/nowhere")

    async def test_nothing_there(self) -> None:
        """Without any Ollama it is the embedded engine."""
        choice = await choose_engine(Pool(models=(MODEL,)))
        assert choice.pool.engine.kind == "llamacpp"
        assert "127.0.0.1:9 does not answer; no ollama on PATH" in str(choice)

    async def test_a_running_ollama(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that runs and has the models is attached to; OLLAMA_HOST says where."""
        simulator = start_simulator()
        monkeypatch.setenv("OLLAMA_HOST", simulator.url.removeprefix("http://"))
        choice = await choose_engine(Pool(models=(MODEL,)))
        lacking = await choose_engine(Pool(models=("nope",)))
        simulator.stop()
        assert (choice.pool.engine.kind, choice.pool.engine.url) == ("attach", simulator.url)
        assert lacking.pool.engine.kind == "llamacpp"
        assert "lacks nope" in str(lacking)

    async def test_an_executable(self, monkeypatch: pytest.MonkeyPatch, fake_ollama: Path) -> None:
        """An `ollama` on PATH is asked which models it has, and never to pull one."""
        monkeypatch.setenv("PATH", f"{fake_ollama.parent}:/bin:/usr/bin")
        monkeypatch.setenv("FAKE_OLLAMA_MODELS", MODEL)
        choice = await choose_engine(Pool(models=(MODEL,)))
        assert choice.pool.engine.kind == "ollama"
        lacking = await choose_engine(Pool(models=("nope",)))
        assert lacking.pool.engine.kind == "llamacpp"
        assert processes.gone(engine_processes())

    async def test_a_configured_address(self) -> None:
        """A URL that is configured is taken without a question."""
        pool = Pool(models=(MODEL,), engine=EngineSettings(url="http://127.0.0.1:9"))
        assert (await choose_engine(pool)).pool.engine.kind == "attach"
