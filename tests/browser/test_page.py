"""The page in a real Chromium: what a person sees, and what a hostile model can't do."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from serve_app.api.build import build_api
from serve_app.settings import Settings
from tests.support import browser as chromium
from tests.support.browser import (
    NARROW,
    WIDE,
    ActionChains,
    Keys,
    Select,
    WebDriverWait,
    browser,
    resize,
)
from tests.support.fleets import Stage
from tests.support.scenes import busy, empty, engine_killed, growing, sixty_four
from tests.support.scripted_models import HOSTILE, ScriptedModels, scripts
from tests.support.service import Noted, listening

pytestmark = chromium.needed

# `npm pack axe-core`, unpacked: package/axe.min.js. Its licence is the MPL, so it is not kept here.
AXE = os.environ.get("SERVE_APP_TEST_AXE", "")
KEYS = "ada: {key: sk-ada, admin: true}\nbob: {key: sk-bob}\n"


class Site:
    """A running service with a page, its stage, its models."""

    def __init__(self, url: str, stage: Stage, models: ScriptedModels) -> None:
        self.url = url
        self.stage = stage
        self.models = models


@asynccontextmanager
async def site(port: int = 0, **settings: Any) -> AsyncIterator[Site]:
    stage, models = Stage(empty()), ScriptedModels(scripts())
    stage.show(_with_models(empty(), models))
    built = Settings(models=tuple(scripts()), engine={"kind": "simulated"}, **settings)

    async def stop() -> None:
        """Nothing runs."""

    api = build_api(built, models, Noted(), stop, fleet=stage)
    async with listening(api, port) as url:
        yield Site(url, stage, models)


def _with_models(document: dict[str, Any], models: ScriptedModels) -> dict[str, Any]:
    (known,) = document["models"]
    return {**document, "models": [{**known, "name": card.name} for card in models.cards()]}


@pytest.fixture(scope="module")
async def shared_site() -> AsyncIterator[Site]:
    async with site() as running:
        yield running


@pytest.fixture(scope="module")
def shared_driver() -> Iterator[Any]:
    with browser() as driver:
        yield driver


@pytest.fixture
def driver(shared_driver: Any) -> Iterator[Any]:
    """At a new page, in a tab that remembers nothing."""
    resize(shared_driver, WIDE)
    yield shared_driver
    shared_driver.get("about:blank")


@pytest.fixture
def opened(shared_site: Site, driver: Any) -> Callable[[str], Any]:
    shared_site.stage.show(_with_models(empty(), shared_site.models))
    shared_site.models.bodies.clear()

    def run(view: str = "fleet") -> Any:
        driver.get(f"{shared_site.url}/ui#{view}")
        return driver

    return run


def until(driver: Any, script: str, within_s: float = 15) -> Any:
    """Wait for `script` to return something true; return it."""
    return WebDriverWait(driver, within_s, 0.05).until(lambda d: d.execute_script(script))


def text(driver: Any) -> str:
    return str(driver.execute_script("return document.querySelector('main').innerText"))


def sees(driver: Any, words: str) -> None:
    until(driver, f"return document.body.innerText.includes({json.dumps(words)})")


def problems(driver: Any) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def requested(driver: Any) -> list[str]:
    """The addresses of all requests since the last time."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [one["request"]["url"] for one in sent]


async def test_it_loads_from_this_service_alone(opened: Any, shared_site: Site) -> None:
    """With the network cut, without a complaint of the browser about its policy."""

    def look() -> tuple[list[str], list[str]]:
        driver = opened()
        sees(driver, "at the minimum")
        return problems(driver), requested(driver)

    complaints, urls = await asyncio.to_thread(look)
    assert complaints == []
    assert len(urls) > 8
    assert [url for url in urls if not url.startswith((shared_site.url, "about:", "data:"))] == []


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (busy, ["4/4", "+30", "at the maximum of 4", "reports", "502 EngineLost", "21 times"]),
        (growing, ["engine loading", "waiting for a worker", "Ready in about", "5 on the way"]),
        (engine_killed, ["engine away", "it refuses connections", "The history of 1 replica"]),
    ],
)
async def test_the_fleet_is_shown_as_it_is(
    opened: Any, shared_site: Site, scene: Callable[[], Any], words: list[str]
) -> None:
    """And as it changes, within a poll or two."""

    def look() -> None:
        driver = opened()
        sees(driver, "at the minimum")
        shared_site.stage.show(scene())
        for each in words:
            sees(driver, each)

    await asyncio.to_thread(look)


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_nothing_is_wider_than_the_screen(
    opened: Any, shared_site: Site, size: tuple[int, int]
) -> None:
    """In any view, with sixty-four replicas."""
    shared_site.stage.show(sixty_four())

    def look() -> list[int]:
        driver = opened()
        resize(driver, size)
        sees(driver, "asks for 32 replicas")
        widths = []
        for view in ("fleet", "playground", "models", "keys"):
            driver.execute_script(f"location.hash = '{view}'")
            until(driver, f"return document.title.toLowerCase().startsWith('{view}')")
            widths.append(
                driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
            )
        return widths

    assert await asyncio.to_thread(look) == [0, 0, 0, 0]


@pytest.mark.skipif(not AXE, reason="needs SERVE_APP_TEST_AXE, the path of axe.min.js")
@pytest.mark.parametrize("dark", [False, True])
async def test_it_is_accessible(shared_site: Site, dark: bool) -> None:
    """Axe finds nothing in any view, in the light and in the dark."""

    def look() -> list[str]:
        script = Path(AXE).read_text()
        shared_site.stage.show(_with_models(busy(), shared_site.models))
        with browser(dark) as driver:
            driver.get(f"{shared_site.url}/ui#fleet")
            sees(driver, "at the maximum")
            driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
            driver.refresh()
            sees(driver, "at the maximum")
            driver.execute_script(script)
            return [problem for view in VIEWS for problem in _axe(driver, view)]

    assert await asyncio.to_thread(look) == []


VIEWS = ("fleet", "playground", "models", "keys")


def _axe(driver: Any, view: str) -> list[str]:
    driver.execute_script(f"location.hash = '{view}'")
    until(driver, f"return document.title.toLowerCase().startsWith('{view}')")
    found = driver.execute_async_script(
        "const done = arguments[0]; axe.run().then(r => done(r.violations), e => done([String(e)]))"
    )
    return [
        f"{view}: {v['impact']} {v['id']} {[n['target'] for n in v['nodes']][:3]}" for v in found
    ]


async def test_it_says_when_the_service_is_away_and_recovers(driver: Any) -> None:
    """The last state stays on the page until another service has taken the port."""

    def until_seen(*words: str) -> Callable[[], None]:
        return lambda: [sees(driver, each) for each in words] and None

    async with site() as running:
        address = f"{running.url}/ui"
        await asyncio.to_thread(driver.get, address)
        await asyncio.to_thread(until_seen("at the minimum", "live"))
    away = until_seen("The service does not answer", "connection lost", "at the minimum")
    await asyncio.to_thread(away)
    async with site(port=int(running.url.rpartition(":")[2])) as running:
        running.stage.show(engine_killed())
        await asyncio.to_thread(until_seen("engine away", "live"))
        assert "does not answer" not in await asyncio.to_thread(text, driver)


async def test_it_says_when_nobody_gathers(opened: Any, shared_site: Site) -> None:
    """The service answers, with the state of a minute ago."""

    def look() -> None:
        driver = opened()
        shared_site.stage.show(busy(), age_s=63)
        sees(driver, "Serve's controller does not answer: below is the state of")

    await asyncio.to_thread(look)


async def test_a_key_is_asked_for_and_kept_in_the_tab(driver: Any, tmp_path: Path) -> None:
    """A wrong one is refused; the right one stands in a header, and in no other store."""
    file = tmp_path / "keys"
    file.write_text(KEYS)

    def look(url: str) -> None:
        driver.get(f"{url}/ui")
        for wrong in ("sk-eve", "sk-bob"):
            _enter(driver, wrong)
            sees(driver, "That key does not open this page")
        _enter(driver, "sk-ada")
        sees(driver, "at the minimum")
        stores = driver.execute_script(
            "return [location.href, document.cookie, Object.entries(localStorage),"
            " Object.values(sessionStorage)]"
        )
        assert stores == [f"{url}/ui", "", [], ["sk-ada"]]
        assert not [address for address in requested(driver) if "sk-" in address]
        driver.execute_script("document.querySelector('.bar button').click()")
        sees(driver, "This service has keys")
        assert driver.execute_script("return sessionStorage.length") == 0

    async with site(api_keys_file=file) as running:
        await asyncio.to_thread(look, running.url)


def _enter(driver: Any, key: str) -> None:
    until(driver, "return !!document.querySelector('input[type=password]')")
    box = driver.find_element("css selector", "input[type=password]")
    box.clear()
    box.send_keys(key)
    driver.find_element("css selector", ".sign-in button").click()


def _choose(driver: Any, model: str, place: int = 0) -> None:
    until(driver, "return document.querySelectorAll('.controls select').length > 1")
    Select(driver.find_elements("css selector", ".controls select")[place]).select_by_value(model)


def _ask(driver: Any, words: str) -> None:
    box = driver.find_element("css selector", ".ask textarea")
    box.send_keys(words)
    box.send_keys(Keys.CONTROL, Keys.ENTER)


async def test_two_models_answer_side_by_side(opened: Any, shared_site: Site) -> None:
    """With the time to the first token, each in its own conversation."""

    def look() -> None:
        driver = opened("playground")
        _choose(driver, "plain")
        _choose(driver, "thinker", 1)
        _ask(driver, "hi")
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
        _choose(driver, "hostile")
        _ask(driver, "hi")
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


async def test_a_huge_answer_leaves_the_page_alive(opened: Any) -> None:
    """Of 10 MB the beginning is shown, and how much more there is."""

    def look() -> None:
        driver = opened("playground")
        _choose(driver, "huge")
        _ask(driver, "hi")
        sees(driver, "10,285,760 more characters, not shown")
        assert driver.execute_script("return document.body.innerText.length") < 300_000

    await asyncio.to_thread(look)


@pytest.mark.parametrize(("button", "command"), [(0, ["bash", "-c"]), (1, [sys.executable, "-c"])])
async def test_what_is_copied_works_as_pasted(
    opened: Any, shared_site: Site, button: int, command: list[str]
) -> None:
    """With quotes, newlines and other alphabets in the message."""
    words = 'it\'s "5" $HOME \\n `x` ß 🙂'

    def look() -> str:
        driver = opened("playground")
        _choose(driver, "plain")
        driver.execute_script(
            "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (t) => {"
            " window.copied = t; }}})"
        )
        driver.execute_script(
            "const b = document.querySelector('.ask textarea'); b.value = arguments[0];"
            " b.dispatchEvent(new Event('input', {bubbles: true}))",
            words,
        )
        sees(driver, "Copy as")
        driver.find_elements("css selector", ".copies button")[button].click()
        return str(until(driver, "return window.copied"))

    pasted = await asyncio.to_thread(look)
    run = await asyncio.to_thread(
        subprocess.run, [*command, pasted], capture_output=True, text=True, timeout=20
    )
    assert "Hello" in run.stdout, run.stderr
    assert shared_site.models.bodies[-1]["messages"] == [{"role": "user", "content": words}]


FOCUSED = """const it = document.activeElement;
return it.tagName === 'TEXTAREA' ? it.tagName : it.innerText.split('\\n')[0] || it.tagName"""


async def test_the_keyboard_reaches_everything(opened: Any) -> None:
    """From the first link on, in order."""

    def look() -> list[str]:
        driver = opened("playground")
        until(driver, "return document.querySelectorAll('.controls select').length > 1")
        seen = []
        for _ in range(24):
            ActionChains(driver).send_keys(Keys.TAB).perform()
            seen.append(driver.execute_script(FOCUSED))
        return seen

    seen = await asyncio.to_thread(look)
    assert seen[:4] == ["Fleet", "Playground", "Models", "Keys"]
    assert {"Copy as curl", "Copy as Python", "Send", "TEXTAREA", "Tools"} <= set(seen)
