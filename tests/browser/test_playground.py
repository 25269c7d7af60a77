"""The playground in a real Chromium, before a simulated engine and before scripted models."""

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support import browser as chromium
from tests.support.browser import Select, ask, choose, sees, until
from tests.support.fleets import Stage
from tests.support.scenes import empty
from tests.support.scripted_models import HOSTILE
from tests.support.service import Service, Simulator, serving, start_simulator
from tests.support.site import Site

pytestmark = chromium.needed

MODEL = "thinker:latest"
KEYS = "ada: {key: sk-ada, admin: true}\n"
DIALECTS = ("openai", "responses", "ollama", "anthropic")
WORDS = 'it\'s "5" $HOME \\n `x` ß 🙂'


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    """An instant engine with a model that thinks and calls tools."""
    names = ("--models", MODEL, "--thinking-models", MODEL, "--tools-models", MODEL)
    simulator = start_simulator(*names, "--answer-tokens", "3")
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module")
async def service(engine: Simulator) -> AsyncIterator[Service]:
    async with serving(engine, models=(MODEL,), fleet=Stage(_stage())) as running:
        yield running


def _stage() -> dict[str, Any]:
    document = empty()
    (known,) = document["models"]
    return {**document, "models": [{**known, "name": MODEL}]}


@pytest.fixture
async def playground(service: Service, driver: Any) -> Any:
    def look() -> None:
        driver.get(f"{service.base_url}/ui#playground")
        until(driver, "return document.querySelectorAll('.controls select').length > 1")

    await asyncio.to_thread(look)  # the service answers in this thread
    return driver


def dialect(driver: Any, name: str) -> None:
    Select(driver.find_elements("css selector", ".controls select")[2]).select_by_value(name)


def fill(driver: Any, label: str, value: str) -> None:
    """Enter a value into the field with this label, as typing would, emoji included."""
    driver.execute_script(
        "const label = [...document.querySelectorAll('label')].find("
        "l => l.textContent.trim().startsWith(arguments[0]));"
        "const field = label.querySelector('input, textarea');"
        "if (field.type === 'checkbox') { field.click(); return; }"
        "field.value = arguments[1]; field.dispatchEvent(new Event('input', {bubbles: true}));",
        label,
        value,
    )


def answered(driver: Any, count: int) -> str:
    """Wait for so many answers; return the text of the last one."""
    until(driver, f"return document.querySelectorAll('.speed').length === {count}")
    turns = "[...document.querySelectorAll('.turn:not(.user)')].at(-1).innerText"
    return str(driver.execute_script(f"return {turns}"))


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "parameters": CITY}


@pytest.mark.parametrize("name", DIALECTS)
async def test_every_dialect_thinks_answers_and_calls(
    playground: Any, engine: Simulator, name: str
) -> None:
    """As a stream and whole, in one conversation, with the speed of each answer."""

    def look() -> list[str]:
        dialect(playground, name)
        fill(playground, "Let the model think", "")
        texts = []
        for tools in ("", json.dumps([TOOL])):
            fill(playground, "Functions", tools)
            for _ in ("stream", "whole"):
                ask(playground, "hi")
                texts.append(answered(playground, len(texts) + 1))
                fill(playground, "Stream", "")
        return texts

    engine.reset()
    texts = await asyncio.to_thread(look)
    for text in texts[:2]:
        thought, _, answer = text.partition("Let me think.")
        assert thought
        assert len(answer.partition("first token")[0].split()) == 3
        assert "7 tokens" in text
    for text in texts[2:]:
        assert 'calls get_weather({"city":"word"})' in text


def _image(folder: Path) -> tuple[Path, str]:
    file, written = folder / "dot.png", io.BytesIO()
    Image.new("RGB", (2, 2), "red").save(written, "PNG")
    file.write_bytes(written.getvalue())
    return file, base64.b64encode(written.getvalue()).decode()


def _expected(name: str, image: str) -> dict[str, Any]:
    """What a message with an image, a system prompt and parameters is in each dialect."""
    url, system = f"data:image/png;base64,{image}", {"role": "system", "content": "Be brief."}
    text = {"type": "text", "text": "hi"}
    source = {"type": "base64", "media_type": "image/png", "data": image}
    shown = {
        "openai": {"type": "image_url", "image_url": {"url": url}},
        "responses": {"type": "input_image", "image_url": url},
        "anthropic": {"type": "image", "source": source},
    }
    if name == "ollama":
        user: dict[str, Any] = {"role": "user", "content": "hi", "images": [image]}
        options = {"temperature": 0.5, "num_predict": 9, "seed": 3}
        return {"messages": [system, user], "options": options}
    if name == "anthropic":
        user = {"role": "user", "content": [shown[name], text]}
        return {"system": "Be brief.", "messages": [user], "max_tokens": 9, "temperature": 0.5}
    if name == "responses":
        text = {"type": "input_text", "text": "hi"}
        user = {"role": "user", "content": [text, shown[name]]}
        return {"instructions": "Be brief.", "input": [user], "max_output_tokens": 9}
    user = {"role": "user", "content": [text, shown[name]]}
    return {"messages": [system, user], "max_tokens": 9, "temperature": 0.5, "top_p": 0.5}


FIELDS = {
    "openai": {"top_p": 0.5},
    "responses": {"top_p": 0.5},
    "ollama": {"options": {"seed": 3}},
    "anthropic": {"top_p": 0.5},
}


@pytest.mark.parametrize("name", DIALECTS)
async def test_images_and_parameters_reach_the_engine(
    playground: Any, engine: Simulator, tmp_path: Path, name: str
) -> None:
    """The image is shown beside the message; fields of one's own join those of the form."""
    file, image = _image(tmp_path)

    def look() -> int:
        dialect(playground, name)
        for label, value in (("System", "Be brief."), ("Temperature", "0.5"), ("Max", "9")):
            fill(playground, label, value)
        fill(playground, "Fields", json.dumps(FIELDS[name]))
        playground.find_element("css selector", "input[type=file]").send_keys(str(file))
        sees(playground, "1 image attached")
        ask(playground, "hi")
        answered(playground, 1)
        script = "return document.querySelector('.turn.user img').naturalWidth"
        return int(until(playground, script))

    engine.reset()
    assert await asyncio.to_thread(look) == 2
    sent, expected = engine.last_body, _expected(name, image) | {"model": MODEL}
    assert {field: sent.get(field) for field in expected} == expected


def copied(driver: Any, button: int) -> str:
    """The text that one of the copy buttons of the first pane puts on the clipboard."""
    driver.execute_script(
        "window.copied = ''; Object.defineProperty(navigator, 'clipboard', {configurable: true,"
        " value: {writeText: async (t) => { window.copied = t; }}})"
    )
    driver.find_elements("css selector", ".copies button")[button].click()
    return str(until(driver, "return window.copied"))


async def pasted(button: int, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [("bash", "-c"), (sys.executable, "-c")][button]
    plain = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return await asyncio.to_thread(
        subprocess.run,
        [*command, text],
        capture_output=True,
        text=True,
        timeout=20,
        env=plain | environ,
    )


@pytest.mark.parametrize("name", DIALECTS)
async def test_what_is_copied_works_as_pasted(
    playground: Any, engine: Simulator, name: str
) -> None:
    """As curl and as Python, with quotes, newlines, other alphabets and tools in it."""

    def look() -> list[str]:
        dialect(playground, name)
        fill(playground, "Functions", json.dumps([TOOL]))
        fill(playground, "Message", WORDS)
        return [copied(playground, button) for button in (0, 1)]

    texts = await asyncio.to_thread(look)
    engine.reset()
    for button, text in enumerate(texts):
        run = await pasted(button, text)
        assert "get_weather" in run.stdout, run.stderr
    bodies = [json.loads(e["body"]) for e in engine.stats()["history"] if e["body"]]
    curl, python = (body for body in bodies if "stream" in body)
    assert curl == python
    turn = (curl.get("messages") or curl.get("input"))[-1]
    assert turn == {"role": "user", "content": WORDS}


async def test_what_is_copied_reads_the_key_from_the_environment(
    engine: Simulator, driver: Any, tmp_path: Path
) -> None:
    """No key is in it, and with the key it works."""
    file = tmp_path / "keys"
    file.write_text(KEYS)

    def look(url: str) -> list[str]:
        driver.get(f"{url}/ui#playground")
        driver.execute_script("sessionStorage.setItem('fleet-admin-key', 'sk-ada')")
        driver.refresh()
        until(driver, "return document.querySelectorAll('.copies button').length === 2")
        return [copied(driver, button) for button in (0, 1)]

    stage = Stage(_stage())
    async with serving(engine, models=(MODEL,), fleet=stage, api_keys_file=file) as service:
        texts = await asyncio.to_thread(look, str(service.base_url))
        for button, text in enumerate(texts):
            assert "sk-" not in text
            run = await pasted(button, text, LLM_API_KEY="sk-ada")
            assert '"chat.completion' in run.stdout, run.stderr


async def test_json_that_is_none_is_named(playground: Any, engine: Simulator) -> None:
    """And nothing is sent."""

    def look() -> None:
        fill(playground, "Fields", "{top_p: 1}")
        ask(playground, "hi")
        sees(playground, "Tools must be a list of functions, and other fields an object")

    engine.reset()
    await asyncio.to_thread(look)
    assert engine.reached == {}


@pytest.mark.parametrize("name", DIALECTS)
async def test_an_answer_that_breaks_off_is_named(
    playground: Any, engine: Simulator, name: str
) -> None:
    """By the sentence of the error that the stream ends with."""

    def look() -> str:
        dialect(playground, name)
        ask(playground, "hi")
        return str(until(playground, "return document.querySelector('.failed')?.innerText"))

    engine.reset()
    engine.fault(kind="cut")
    assert "engine" in await asyncio.to_thread(look)


async def test_two_models_answer_side_by_side(opened: Any, shared_site: Site) -> None:
    """With the time to the first token, each in its own conversation."""

    def look() -> None:
        driver = opened("playground")
        choose(driver, "plain")
        choose(driver, "thinker", 1)
        ask(driver, "hi")
        sees(driver, "Hello there.")
        sees(driver, "The user wants weather.")
        sees(driver, 'calls get_weather({"city":"Rome"})')
        until(driver, "return document.querySelectorAll('.speed').length === 2")

    await asyncio.to_thread(look)
    assert sorted(body["model"] for body in shared_site.models.bodies) == [
        "plain:latest",
        "thinker:latest",
    ]
    assert {body["messages"][-1]["content"] for body in shared_site.models.bodies} == {"hi"}


async def test_what_a_model_wrote_is_text(opened: Any) -> None:
    """Script, broken markup and `javascript:` links included."""

    def look() -> None:
        driver = opened("playground")
        choose(driver, "hostile")
        ask(driver, "hi")
        until(driver, "return document.querySelectorAll('.speed').length === 1")
        for place in (".turn:not(.user) .text", ".thinking"):
            shown = driver.execute_script(
                "const e = document.querySelector(arguments[0]); return [e.lastChild.data,"
                " e.querySelectorAll('script, img, a').length]",
                place,
            )
            assert shown == [HOSTILE, 0]
        assert driver.execute_script("return window.broken") is None

    await asyncio.to_thread(look)


async def test_huge_thoughts_and_calls_leave_the_page_alive(opened: Any) -> None:
    """In one piece of 10 MB, and a thousand calls."""

    def look() -> None:
        driver = opened("playground")
        choose(driver, "deep")
        ask(driver, "hi")
        sees(driver, "and more calls, not shown")
        until(driver, "return document.querySelectorAll('.speed').length === 1")
        assert driver.execute_script("return document.body.innerText.length") < 300_000
        assert driver.execute_script("return document.querySelectorAll('.tool').length") == 50

    await asyncio.to_thread(look)


async def test_a_huge_answer_leaves_the_page_alive(opened: Any) -> None:
    """Of 10 MB the beginning is shown, and how much more there is."""

    def look() -> None:
        driver = opened("playground")
        choose(driver, "huge")
        ask(driver, "hi")
        sees(driver, "10,285,760 more characters, not shown")
        assert driver.execute_script("return document.body.innerText.length") < 300_000

    await asyncio.to_thread(look)
