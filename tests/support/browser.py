"""Debian's Chromium, driven through its own driver, without a network beyond this machine."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains as ActionChains
from selenium.webdriver.common.keys import Keys as Keys
from selenium.webdriver.support.ui import Select as Select
from selenium.webdriver.support.ui import WebDriverWait as WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needed = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)
WIDE, NARROW = (1400, 900), (390, 844)


@contextmanager
def browser(dark: bool = False) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (
        "--headless=new",
        "--no-sandbox",  # tests may run as root
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # cuts off the network
        "--no-proxy-server",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        yield driver
    finally:
        driver.quit()


def resize(driver: webdriver.Chrome, size: tuple[int, int]) -> None:
    """Resize the page, as to a phone or a window."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


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
    """Return the addresses of all requests since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [one["request"]["url"] for one in sent]


def choose(driver: Any, model: str, place: int = 0) -> None:
    until(driver, "return document.querySelectorAll('.controls select').length > 1")
    Select(driver.find_elements("css selector", ".controls select")[place]).select_by_value(model)


def ask(driver: Any, words: str) -> None:
    box = driver.find_element("css selector", ".ask textarea")
    box.send_keys(words)
    box.send_keys(Keys.CONTROL, Keys.ENTER)
