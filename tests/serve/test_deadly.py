"""A request that kills its engine, in both topologies: it kills three in all, and is told."""

import asyncio
import os
from typing import Any

import httpx
import pytest

from serve_app.simulator.faults import DIES_OF
from tests.support import processes
from tests.support.waiting import eventually

DEADLY = "the word that kills"
ENGINE = {"kind": "simulated", "env": {DIES_OF: DEADLY}}
TOPOLOGIES: dict[str, tuple[int, dict[str, Any]]] = {
    "direct": (1, {"topology": "direct"}),
    "gateway": (
        3,
        {"topology": "gateway", "autoscaling": {"min_replicas": 3, "max_replicas": 3}},
    ),
}


def engines() -> set[int]:
    """The processes of the simulated engines themselves."""
    pids = processes.descendants(os.getpid())
    return {p for p in pids if "-m serve_app.simulator" in processes.own_command(p)}


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_a_deadly_request_kills_three_engines(deploy, topology: str) -> None:
    """And whoever asks after it is answered."""
    replicas, settings = TOPOLOGIES[topology]
    url = await asyncio.to_thread(deploy, engine=ENGINE, **settings)
    before, seen = engines(), engines()
    assert len(before) == replicas
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        asking = asyncio.create_task(client.post("/api/generate", json=generate(DEADLY)))
        while not asking.done():
            seen |= engines()
            await asyncio.sleep(0.01)
        answer = await asking
        assert answer.status_code == 502
        await eventually(lambda: len(engines()) == replicas, within_s=30)
        assert len((seen | engines()) - before) == 3
        assert (await client.post("/api/generate", json=generate("hi"))).status_code == 200


def generate(prompt: str) -> dict[str, Any]:
    return {"model": "smollm2:135m", "prompt": prompt, "stream": False}
