"""`python -m serve_app top`: the same document in a terminal."""

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from serve_app.fleet.client import FleetClient, Unavailable
from serve_app.fleet.document import ServiceSettings as Described
from serve_app.fleet.document import collecting
from serve_app.fleet.terminal import render
from serve_app.fleet.top import main
from tests.support.fleets import NOW, Stage, pool
from tests.support.odd_server import ODD, answer, odd_server
from tests.support.scenes import SCENES, asleep, busy, engine_killed, growing, swapping
from tests.support.service import Simulator, serving
from tests.support.waiting import eventually


def printed(document: dict[str, Any], problem: str = "") -> str:
    console = Console(width=160, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(render(document, problem))
    console.file.close()
    return console.export_text()


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (busy, ["4/4 replicas ready", "16/16 slots busy", "30 waiting", "23 batch reports"]),
        (growing, ["waiting for a worker", "ready in about", "1 running, target 6, 1 to 6"]),
        (growing, ["wait for a worker with free resources"]),
        (swapping, ["(up in 21 s)", "gemma3:27b, loading deepseek-r2:14b"]),
        (engine_killed, ["engine away", "it refuses connections", "502 EngineLost"]),
        (asleep, ["asleep: the next request wakes it", "0 running, target 0, 0 to 2"]),
    ],
)
def test_the_table_has_what_the_page_has(scene: Any, words: list[str]) -> None:
    """States, load, scaling, queue and errors with advice."""
    shown = printed(scene())
    assert not [word for word in words if word not in shown]
    assert "python -m kuberay status" in shown


@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_can_be_printed(scene: str) -> None:
    """Also where nothing is known."""
    assert "replicas ready" in printed(SCENES[scene](), "the service is away")


def test_no_text_steers_the_terminal() -> None:
    """What callers and engines wrote is neither markup nor an escape sequence."""
    document = engine_killed()
    document["errors"][0]["sentence"] = "\x1b[2J[red]x[/red]"
    document["pools"][0]["replicas"][1]["engine"]["detail"] = "[link=https://evil]y[/link]"
    shown = printed(document)
    assert "\x1b[2J" not in shown
    assert "[red]x[/red]" in shown
    assert "[link=https://evil]y[/link]" in shown


async def test_json_is_the_document(
    simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, with the exit code 0."""
    stage = Stage(busy())
    async with serving(simulator, fleet=stage) as service:
        code = await asyncio.to_thread(main, ["--url", str(service.base_url), "--json"], {})
    assert code == 0
    assert json.loads(capsys.readouterr().out)["pools"][0]["name"] == "pool"


@pytest.mark.parametrize(
    ("key", "words"), [("", "a valid API key"), ("sk-bob", "admin: true"), ("sk-ada", "")]
)
async def test_a_key_comes_from_the_environment(
    simulator: Simulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    key: str,
    words: str,
) -> None:
    """As for `usage`; a refusal is a sentence and the exit code 1."""
    file = tmp_path / "keys"
    file.write_text("ada: {key: sk-ada, admin: true}\nbob: {key: sk-bob}\n")
    environ = {"LLM_ADMIN_KEY": key} if key else {}
    async with serving(simulator, fleet=Stage(busy()), api_keys_file=file) as service:
        arguments = ["--url", f"{service.base_url}", "--json"]
        code = await asyncio.to_thread(main, arguments, environ)
    err = capsys.readouterr().err
    assert (code, words in err) == (1 if words else 0, True)
    assert not key or key not in err


async def test_the_first_document_is_waited_for(simulator: Simulator) -> None:
    """The collector starts with the first viewer."""
    stage = Stage(collecting(Described("direct", "0.2.0", (pool(),)), NOW))
    async with serving(simulator, fleet=stage) as service:
        with FleetClient(str(service.base_url), "") as fleet:
            waiting = asyncio.create_task(asyncio.to_thread(fleet.first))
            await eventually(lambda: bool(service.noted.ended_exchanges))
            stage.show(busy())
            assert (await waiting)["now"]["ready"] == 4
            assert (await asyncio.to_thread(fleet.document))["now"]["ready"] == 4  # a 304


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:1", "does not answer"),
        ("ftp://127.0.0.1", "does not answer"),
        ("http://a:port", "is not an address"),
    ],
)
def test_an_address_that_does_not_work(
    url: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names it."""
    assert main(["--url", url], {}) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("odd", ODD)
async def test_what_is_no_service_is_named(odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A login page, or another service at the address: one sentence and the exit code 1."""
    async with odd_server({"/admin/fleet": ODD[odd]}) as url:
        assert await asyncio.to_thread(main, ["--url", url, "--json"], {}) == 1
    err = capsys.readouterr().err
    assert err.startswith(url)
    assert "Traceback" not in err


@pytest.mark.usefixtures("dead_proxy")
async def test_no_proxy_sees_this_machines_requests(simulator: Simulator) -> None:
    """Behind HTTP_PROXY the service on loopback is asked directly: the request has a key."""
    async with serving(simulator, fleet=Stage(busy())) as service:
        with FleetClient(str(service.base_url), "") as fleet:
            assert await asyncio.to_thread(fleet.document)


@pytest.mark.parametrize(
    ("asked", "seconds"), [("4.20", 4.2), ("0", 1), ("-1", 1), ("nan", 1), ("soon", 1), ("1e9", 60)]
)
async def test_it_polls_when_the_service_asks(asked: str, seconds: float) -> None:
    """Within bounds; a second later where the answer can't be read."""
    body = answer(orjson.dumps(busy()), more=f"Poll-After: {asked}\r\n")
    async with odd_server({"/admin/fleet": body}) as url:
        with FleetClient(url, "") as fleet:
            await asyncio.to_thread(fleet.document)
            assert fleet.poll_after_s == seconds


async def test_another_version_is_refused(simulator: Simulator) -> None:
    """A table of wrong numbers would be worse than none."""
    async with serving(simulator, fleet=Stage({**busy(), "version": 2})) as service:
        with (
            FleetClient(str(service.base_url), "") as fleet,
            pytest.raises(Unavailable, match="version 2, not 1"),
        ):
            await asyncio.to_thread(fleet.document)
