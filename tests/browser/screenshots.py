"""Writes the screenshots of docs/ui.md.

    python -m tests.browser.screenshots docs/images

The page and its server are real. The fleets are documents by the code that makes real ones; the
playground talks to the embedded engine.
"""

import argparse
import asyncio
import base64
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from serve_app.settings import Settings
from tests.support.browser import NARROW, WIDE, Keys, Select, WebDriverWait, browser, resize
from tests.support.fleets import Stage
from tests.support.scenes import SCENES, busy, empty
from tests.support.service import serving, start_simulator, started

# Also in dark colours.
DARK = {"busy", "growing"}


def picture(driver: Any, path: Path) -> None:
    """Write the whole page, however long it is, in 256 colours."""
    image = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    with Image.open(io.BytesIO(base64.b64decode(image["data"]))) as shot:
        shot.convert("RGB").quantize(
            256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        ).save(path, optimize=True)


def until(driver: Any, script: str) -> None:
    WebDriverWait(driver, 60, 0.1).until(lambda driver: driver.execute_script(script))


class Studio:
    """Takes pictures of one service's page at both widths, some in the dark too."""

    def __init__(self, url: str, folder: Path, only: set[str]) -> None:
        self._url = url
        self._folder = folder
        self._only = only

    def wants(self, name: str) -> bool:
        return not self._only or name in self._only

    def take(self, name: str, view: str, act: Callable[[Any], None], dark: bool = False) -> None:
        if not self.wants(name):
            return
        with browser(dark) as driver:
            for size in (WIDE,) if dark else (WIDE, NARROW):
                resize(driver, size)
                driver.get("about:blank")
                driver.get(f"{self._url}/ui#{view}")
                act(driver)
                suffix = f"{size[0]}{'-dark' if dark else ''}"
                picture(driver, self._folder / f"{name}-{suffix}.png")
            complaints = [e["message"][:200] for e in driver.get_log("browser")]
            print(*complaints, sep="\n", end="\n" if complaints else "")


def fleets(studio: Studio, stage: Stage) -> None:
    for name, make in SCENES.items():
        view = "models" if name == "forty-models" else "fleet"
        for dark in (False, True)[: 1 + (name in DARK)]:
            if studio.wants(name):
                stage.show(make())
            studio.take(name, view, shown, dark)


def shown(driver: Any) -> None:
    until(driver, "return !!document.querySelector('.card')")


def access(studio: Studio, stage: Stage) -> None:
    """The page asks for a key, refuses a wrong one, shows use by key, and loses the service."""

    def enter(driver: Any, key: str) -> None:
        until(driver, "return !!document.querySelector('input[type=password]')")
        driver.execute_script("document.activeElement.blur()")
        driver.find_element("css selector", "input[type=password]").send_keys(key)
        driver.find_element("css selector", ".sign-in button").click()

    def wrong(driver: Any) -> None:
        driver.execute_script("sessionStorage.clear()")
        driver.refresh()
        enter(driver, "sk-eve")
        until(driver, "return !!document.querySelector('.wrong')")

    def keys(driver: Any) -> None:
        stage.show(busy())
        driver.execute_script("sessionStorage.setItem('fleet-admin-key', 'sk-ada')")
        driver.refresh()
        until(driver, "return !!document.querySelector('td')")

    def gone(driver: Any) -> None:
        stage.show(busy())
        driver.execute_script("sessionStorage.setItem('fleet-admin-key', 'sk-ada')")
        driver.refresh()
        until(driver, "return !!document.querySelector('.tile')")
        stage.fail()
        until(driver, "return document.body.innerText.includes('connection lost')")

    studio.take("wrong-key", "fleet", wrong)
    studio.take("keys", "keys", keys)
    studio.take("service-gone", "fleet", gone)


def playground(studio: Studio, stage: Stage) -> None:
    """One question to the embedded model, twice, side by side."""

    def talk(driver: Any) -> None:
        stage.show(empty())
        until(driver, "return document.querySelectorAll('.controls select').length > 1")
        beside = Select(driver.find_elements("css selector", ".controls select")[1])
        beside.select_by_index(1)
        box = driver.find_element("css selector", ".ask textarea")
        box.send_keys("Why is the sky blue? Answer in two sentences.", Keys.CONTROL, Keys.ENTER)
        until(driver, "return document.querySelectorAll('.speed').length === 2")
        stage.show(empty())
        driver.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
        until(driver, "return !document.querySelector('.banner')")

    studio.take("playground", "playground", talk)
    studio.take("playground", "playground", talk, dark=True)


async def _use(service: Any) -> None:
    """Some use by three keys of two models."""
    for key, model, count in (("ada", "smollm2:135m", 3), ("bob", "other", 5), ("kim", "other", 1)):
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
        for _ in range(count):
            headers = {
                "authorization": f"Bearer sk-{key}-2" if key == "eve" else f"Bearer sk-{key}"
            }
            await service.post("/v1/chat/completions", json=body, headers=headers)


KEYS = """\
ada: {key: sk-ada, admin: true, group: research}
bob: {key: sk-bob, group: research}
kim: {key: sk-kim}
groups:
  research: {requests_per_minute: 600}
"""


async def main(folder: Path, only: set[str]) -> None:
    simulator, stage = start_simulator("--decode-tokens-per-s", "60"), Stage(empty())
    try:
        async with serving(simulator, fleet=stage) as service:
            studio = Studio(str(service.base_url), folder, only)
            await asyncio.to_thread(fleets, studio, stage)
        stage.show(empty())
        embedded = Settings(engine={"kind": "llamacpp"}, max_tokens=200)
        async with started(embedded, fleet=stage) as service:
            studio = Studio(str(service.base_url), folder, only)
            await asyncio.to_thread(playground, studio, stage)
        with tempfile.NamedTemporaryFile("w") as keys:
            keys.write(KEYS)
            keys.flush()
            stage.show(busy())
            async with serving(simulator, fleet=stage, api_keys_file=keys.name) as service:
                await _use(service)
                studio = Studio(str(service.base_url), folder, only)
                await asyncio.to_thread(access, studio, stage)
    finally:
        simulator.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots")
    parser.add_argument("folder", type=Path)
    parser.add_argument("only", nargs="*", help="names of pictures; default: all")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(options.folder, set(options.only)))
