"""The embedded engine behind the service's API: SmolLM2 as it is, and with tools and thoughts."""

from collections.abc import AsyncIterator

import pytest

from serve_app.engines.llamacpp.gguf.card import find_smollm2
from serve_app.errors import SettingsError
from tests.support.embedded import LONG_CONTEXT, TEMPLATE, llama_server, serving_llama
from tests.support.service import Service

LONG = ("--context-length", str(LONG_CONTEXT))


@pytest.fixture(scope="session")
async def chatty() -> AsyncIterator[Service]:
    """A service whose model only chats."""
    pytest.importorskip("xllamacpp")
    try:
        gguf = find_smollm2()
    except SettingsError as exc:
        pytest.skip(str(exc))
    with llama_server(gguf, *LONG) as (url, _):
        async with serving_llama(url, gguf) as service:
            yield service


@pytest.fixture(scope="session")
async def skilled(
    chatty: Service, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """A service whose model has tools and thoughts."""
    template = tmp_path_factory.mktemp("template") / "skilled.jinja"
    template.write_text(TEMPLATE)
    options = (*LONG, "--chat-template", str(template))
    with llama_server(find_smollm2(), *options) as (url, _):
        async with serving_llama(url, find_smollm2(), "tools", "thinking") as service:
            yield service
