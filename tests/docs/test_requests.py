"""The examples that send requests are sent, to a service before a simulated engine."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator

import pytest

from tests.support import pages
from tests.support.pages import Example
from tests.support.service import Service, serving, start_simulator

ADDRESS = "http://127.0.0.1:8000"
CLIENTS = [example for example in pages.examples("python") if ADDRESS in example.text]
CURLS = [
    (example, words)
    for example in pages.examples("sh")
    for words in pages.commands(example)
    if words[0] == "curl" and "/admin/" not in example.text  # the service here has no keys
]


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    simulator = start_simulator("--answer-tokens", "8")
    async with serving(simulator) as running:
        yield running
    simulator.stop()


async def run(*command: str) -> str:
    """What `command` prints; fails unless it exits with 0."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def here(text: str, service: Service) -> str:
    return text.replace(ADDRESS, str(service.base_url).rstrip("/"))


@pytest.mark.parametrize("example", CLIENTS, ids=str)
async def test_a_client_prints_an_answer(example: Example, service: Service) -> None:
    """An example with an official client works as it is."""
    assert (await run(sys.executable, "-c", here(example.text, service))).strip()


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.parametrize(("example", "words"), CURLS, ids=lambda value: str(value)[:50])
async def test_curl_gets_an_answer(example: Example, words: list[str], service: Service) -> None:
    """A request by curl is answered with 200."""
    command = [here(word, service) for word in words]
    assert (await run(*command, "--silent", "--show-error", "--fail-with-body")).strip()


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node")
@pytest.mark.parametrize("example", pages.examples("js"), ids=str)
async def test_javascript_prints_an_answer(example: Example, service: Service) -> None:
    """An example in JavaScript works as it is."""
    script = here(example.text, service)
    assert (await run("node", "--input-type=module", "--eval", script)).strip()
