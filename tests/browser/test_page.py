"""The page in a real Chromium: what a person sees, and what a hostile model can't do."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from tests.support import browser as chromium
from tests.support.browser import (
    NARROW,
    WIDE,
    ActionChains,
    Keys,
    WebDriverWait,
    browser,
    choose,
    problems,
    requested,
    resize,
    sees,
    text,
    until,
)
from tests.support.scenes import busy, engine_killed, growing, sixty_four, swapping
from tests.support.scripted_models import HOSTILE
from tests.support.service import bound
from tests.support.site import Site, site, with_models

pytestmark = chromium.needed

# `npm pack axe-core`, unpacked: package/axe.min.js. Its licence is the MPL, so it is not kept here.
AXE = os.environ.get("SERVE_APP_TEST_AXE", "")
KEYS = "ada: {key: sk-ada, admin: true}\nbob: {key: sk-bob}\n"


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
        (
            growing,
            [
                *("engine loading", "waiting for a worker", "Ready in about", "5 on the way"),
                "wait for a worker with free resources",
            ],
        ),
        (swapping, ["up in 2", "llama3.3:70b (3 calls)", "Loading deepseek-r2:14b, for 5 calls."]),
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
        sees(driver, "asks for 33 replicas")
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
        shared_site.stage.show(with_models(busy(), shared_site.models))
        with browser(dark) as driver:
            driver.get(f"{shared_site.url}/ui#fleet")
            sees(driver, "at the maximum")
            driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
            driver.refresh()
            sees(driver, "at the maximum")
            driver.execute_script(script)
            problems = [problem for view in VIEWS for problem in _axe(driver, view)]
            driver.execute_script("location.hash = 'fleet'")
            for scene, words in ((growing, "on the way"), (engine_killed, "engine away")):
                shared_site.stage.show(scene())
                sees(driver, words)
                problems += _axe(driver, "fleet")
            return problems

    assert await asyncio.to_thread(look) == []


@pytest.mark.skipif(not AXE, reason="needs SERVE_APP_TEST_AXE, the path of axe.min.js")
async def test_the_question_for_a_key_is_accessible(tmp_path: Path) -> None:
    """Also after a wrong one."""
    file = tmp_path / "keys"
    file.write_text(KEYS)

    def look(url: str) -> list[str]:
        with browser() as driver:
            driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
            driver.get(f"{url}/ui")
            _enter(driver, "sk-eve")
            sees(driver, "That key does not open this page")
            driver.execute_script(Path(AXE).read_text())
            return _axe(driver, "fleet")

    async with site(api_keys_file=file) as running:
        assert await asyncio.to_thread(look, running.url) == []


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


async def test_a_crowd_polls_seldom_and_ages_go_on(opened: Any, shared_site: Site) -> None:
    """The page asks again when the service has said, and counts the seconds by itself."""
    shared_site.stage.show(engine_killed())
    async with httpx.AsyncClient(base_url=shared_site.url, trust_env=False) as crowd:
        await asyncio.gather(*(crowd.get("/admin/fleet") for _ in range(60)))

    def look() -> None:
        driver = opened()
        sees(driver, "engine away")
        began = text(driver)
        until(driver, f"return document.querySelector('main').innerText !== {json.dumps(began)}")
        assert len(_polls(driver)) == 1

    await asyncio.to_thread(look)


async def test_a_hidden_tab_asks_nothing(opened: Any, shared_site: Site) -> None:
    """Until it is looked at."""

    def look() -> None:
        driver = opened()
        driver.execute_cdp_cmd("Page.enable", {})
        added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": HIDDEN})
        try:
            driver.refresh()
            _polls(driver)  # of the page before
            sees(driver, "Gathering the state of the fleet")
            assert _polls(driver) == []
            driver.execute_script("show()")
            sees(driver, "at the minimum")
            assert _polls(driver)
        finally:
            driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)

    await asyncio.to_thread(look)


# What a browser does with a tab behind another one.
HIDDEN = """
let hidden = true;
Object.defineProperty(document, "hidden", { get: () => hidden });
window.show = () => { hidden = false; document.dispatchEvent(new Event("visibilitychange")); };
"""


def _polls(driver: Any) -> list[str]:
    """Return the polls since the last call."""
    return [url for url in requested(driver) if url.endswith("/admin/fleet")]


async def test_it_says_when_nobody_gathers(opened: Any, shared_site: Site) -> None:
    """The service answers, with the state of a minute ago."""

    def look() -> None:
        driver = opened()
        shared_site.stage.show(busy(), age_s=63)
        sees(driver, "Serve's controller does not answer: below is the state of")

    await asyncio.to_thread(look)


async def test_aliases_can_be_asked_and_are_explained(opened: Any, shared_site: Site) -> None:
    """Beside the models that they stand for."""
    shared_site.stage.show(swapping())

    def look() -> None:
        sees(opened("models"), "Aliases: large for llama3.3:70b, then qwen3:32b")
        choose(opened("playground"), "large")

    await asyncio.to_thread(look)


async def test_without_keys_nobodys_use_is_asked_for(opened: Any, shared_site: Site) -> None:
    """The refusal would stand among the last errors of the fleet."""

    def look() -> list[str]:
        driver = opened("keys")
        sees(driver, "Use is counted by key, and this service has no keys")
        return requested(driver)

    assert not [url for url in await asyncio.to_thread(look) if "/admin/usage" in url]


def hostile(value: Any) -> Any:
    """The document with markup in every text that a caller, an engine or an operator writes."""
    if isinstance(value, dict):
        return {name: _hostile(name, item) for name, item in value.items()}
    return [hostile(item) for item in value] if isinstance(value, list) else value


WRITTEN = {
    *("sentence", "kind", "model", "key", "group", "priority", "message", "advice", "detail"),
    *("phase", "why", "name", "id", "family", "parameter_size", "quantization", "version"),
}


def _hostile(name: str, item: Any) -> Any:
    if name in WRITTEN and isinstance(item, str):
        return HOSTILE
    if name in {"models", "capabilities", "loaded_in"} and item and isinstance(item[0], str):
        return [HOSTILE for _ in item]
    return hostile(item)


async def test_what_callers_and_engines_wrote_is_text(opened: Any, shared_site: Site) -> None:
    """In every view, whatever a key, a model, a pool or an error is called."""
    shared_site.stage.show(hostile(engine_killed()))

    def look() -> None:
        driver = opened()
        for view in ("fleet", "models", "playground"):
            driver.execute_script(f"location.hash = '{view}'")
            until(driver, f"return document.title.toLowerCase().startsWith('{view}')")
            sees(driver, "<script>window.broken = 1</script>")
            assert driver.execute_script(MARKUP) == [0, None]

    await asyncio.to_thread(look)


MARKUP = """return [document.querySelectorAll('main :is(script, img, a, iframe)').length,
 window.broken ?? null]"""


async def test_no_frame_shows_it(driver: Any, shared_site: Site) -> None:
    """A page of another site that embeds it gets the browser's own refusal."""

    async def other_site(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        frame = f"<iframe src='{shared_site.url}/ui'></iframe>"
        await send({"type": "http.response.body", "body": frame.encode()})

    def look(url: str) -> list[str]:
        driver.get(url)
        WebDriverWait(driver, 15, 0.05).until(lambda _: refused.extend(problems(driver)) or refused)
        return refused

    refused: list[str] = []
    async with bound(uvicorn.Config(other_site, log_level="warning", lifespan="off")) as url:
        assert "frame-ancestors" in " ".join(await asyncio.to_thread(look, url))


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
