"""Recorded use equals what the engines have counted themselves; `make soak` asks 10,000 times."""

import asyncio
import os
import random
import signal
from pathlib import Path

from serve_app.settings import Settings
from tests.support import processes
from tests.support.ollama_script import write_ollama
from tests.support.ollama_simulator.journal import read
from tests.support.service import started
from tests.support.usage_audit import audit, send, settled, used, write_keys

REQUESTS, USERS = 300, 12
KILLS = (REQUESTS // 3, 2 * REQUESTS // 3)  # after so many requests


def engine(journal: Path) -> int:
    """The process of the engine that writes the journal."""
    (pid,) = [
        pid
        for pid in processes.descendants(os.getpid())
        if str(journal) in processes.own_command(pid)
    ]
    return pid


async def test_totals_equal_the_engines_own_counts(tmp_path: Path) -> None:
    """For whole answers exactly, with hang-ups and two killed engines among 300 requests."""
    journal, file = tmp_path / "journal", tmp_path / "keys"
    write_keys(file, REQUESTS)
    options = ("--models", "smollm2:135m", "--decode-tokens-per-s", "400")
    binary = write_ollama(tmp_path / "ollama", *options, "--journal", str(journal))
    settings = Settings.model_validate(
        {"engine": {"kind": "ollama", "binary": str(binary)}, "api_keys_file": file}
    )
    sent = 0

    def kill() -> None:
        nonlocal sent
        sent += 1
        if sent in KILLS:
            os.kill(engine(journal), signal.SIGKILL)

    async with started(settings) as service:
        url = str(service.base_url).rstrip("/")
        records = await send(url, REQUESTS, USERS, random.Random(0), kill)
        use = await settled(lambda: used(url))
        result = audit(records, use, await asyncio.to_thread(read, journal))
    assert result.problems == []
    assert result.unrecorded == 0
    assert result.whole > REQUESTS / 2
    assert result.estimated > 0
