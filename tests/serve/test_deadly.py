"""A request that kills its engine kills three in all and then fails, in both topologies."""

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import processes
from tests.support.fronts import behind_haproxy
from tests.support.ollama_script import write_ollama
from tests.support.ollama_simulator.faults import DIES_OF
from tests.support.waiting import eventually

pytestmark = behind_haproxy
DEADLY = "the word that kills"
MODEL = "smollm2:135m"
TOPOLOGIES: dict[str, tuple[int, dict[str, Any]]] = {
    "direct": (1, {"topology": "direct"}),
    "gateway": (
        3,
        {"topology": "gateway", "autoscaling": {"min_replicas": 3, "max_replicas": 3}},
    ),
}


@pytest.fixture
def ollama(tmp_path: Path) -> Path:
    """An `ollama` that starts the simulator of the tests."""
    return write_ollama(tmp_path / "ollama", "--models", MODEL)


def engines() -> set[int]:
    """The processes of the simulated engines themselves."""
    pids = processes.descendants(os.getpid())
    return {p for p in pids if "-m tests.support.ollama_simulator" in processes.own_command(p)}


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_a_deadly_request_kills_three_engines(deploy, ollama: Path, topology: str) -> None:
    """A request that kills its engine is not tried a fourth time; the next one is answered."""
    replicas, settings = TOPOLOGIES[topology]
    engine = {"kind": "ollama", "binary": str(ollama), "env": {DIES_OF: DEADLY}}
    others = engines()  # that other tests have started
    url = await asyncio.to_thread(deploy, models=(MODEL,), engine=engine, **settings)
    before = engines() - others
    seen = set(before)
    assert len(before) == replicas
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        asking = asyncio.create_task(client.post("/api/generate", json=generate(DEADLY)))
        while not asking.done():
            seen |= engines() - others
            await asyncio.sleep(0.01)
        answer = await asking
        assert answer.status_code == 502
        await eventually(lambda: len(engines() - others) == replicas, within_s=30)
        assert len((seen | engines() - others) - before) == 3
        assert (await client.post("/api/generate", json=generate("hi"))).status_code == 200


def generate(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, "stream": False}
