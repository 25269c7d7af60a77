"""The keys that reach an engine are those that Ollama reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.api import anthropic, ollama, openai
from serve_app.api.fields import IGNORED, UNSERVED, WITHHELD
from tests.support.service import Service, Simulator, serving

FILE = Path(__file__).parents[2].parent / "shared" / "reference" / "ollama_keys.json"
needed = pytest.mark.skipif(not FILE.is_file(), reason=f"the list {FILE.name} is not at hand")
ENDPOINTS = {e.path: e for e in (*openai.ENDPOINTS, *anthropic.ENDPOINTS, *ollama.ENDPOINTS)}


def read_by_ollama() -> dict[str, set[str]]:
    """Keys by route, and those of `options`."""
    lists = json.loads(FILE.read_text()) if FILE.is_file() else {}
    return {name: set(keys) for name, keys in lists.items() if name != "_"}


@needed
@pytest.mark.parametrize("path", sorted(read_by_ollama().keys() - {"options"}))
def test_every_key_that_ollama_reads_is_passed_or_withheld(path: str) -> None:
    """A route passes what Ollama reads there, but for what is withheld on purpose."""
    if path in UNSERVED:
        assert path not in ENDPOINTS
        return
    assert read_by_ollama()[path] - ENDPOINTS[path].keys == read_by_ollama()[path] & set(WITHHELD)


@needed
async def test_every_option_that_ollama_reads_is_passed_or_reloads(
    service: Service, simulator: Simulator
) -> None:
    """Options pass, but for those that would reload the model for everybody."""
    options = dict.fromkeys(read_by_ollama()["options"] - {"stop"}, 1)
    body = {"model": "smollm2:135m", "prompt": "a", "stream": False, "options": options}
    await service.post("/api/generate", json=body)
    dropped = options.keys() - simulator.last_body["options"].keys()
    assert dropped == options.keys() & ollama.RELOADING_OPTIONS


@needed
async def test_options_all_pass_where_the_settings_allow_them(simulator: Simulator) -> None:
    """With allow_model_options no option is dropped, nor keep_alive and shift."""
    options = dict.fromkeys(read_by_ollama()["options"] - {"stop"}, 1)
    body = {"model": "smollm2:135m", "prompt": "a", "stream": False, "options": options}
    async with serving(simulator, allow_model_options=True) as service:
        await service.post("/api/generate", json={**body, "keep_alive": 5, "shift": True})
    assert simulator.last_body == {**body, "keep_alive": 5, "shift": True}


@pytest.mark.parametrize("path", IGNORED)
def test_ignored_fields_belong_to_a_route(path: str) -> None:
    """The list of ignored fields names routes of the service, and none that is withheld."""
    assert path in ENDPOINTS
    assert not IGNORED[path].keys() & WITHHELD.keys()


async def test_output_config_reaches_the_engine(service: Service, simulator: Simulator) -> None:
    """Ollama makes its thinking level of `effort`."""
    config: dict[str, Any] = {"effort": "high"}
    body = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}]}
    body |= {"max_tokens": 2, "output_config": config}
    await service.post("/v1/messages", json=body)
    assert simulator.last_body["output_config"] == config


async def test_a_list_of_one_prompt_is_that_prompt(service: Service, simulator: Simulator) -> None:
    """LangChain's completion class sends every prompt in a list."""
    body = {"model": "smollm2:135m", "prompt": ["one"], "max_tokens": 2}
    assert (await service.post("/v1/completions", json=body)).status_code == 200
    assert simulator.last_body["prompt"] == "one"


@pytest.mark.parametrize("prompt", [[], ["a", "b"], [1, 2], [[1, 2]], [7], 7, {"a": 1}])
async def test_other_prompts_are_refused_by_name(
    service: Service, simulator: Simulator, prompt: Any
) -> None:
    """Several prompts and lists of tokens give a 400 that says which field it is."""
    body = {"model": "smollm2:135m", "prompt": prompt, "max_tokens": 2}
    answer = await service.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("prompt must be")
    assert simulator.reached == {}
