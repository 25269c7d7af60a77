"""Node's clients of the Responses API on the embedded engine: OpenAI's SDK and the AI SDK.

Run with SERVE_APP_TEST_NODE=1; npm installs what tests/node/package.json names.
"""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.service import Service

SOURCES = Path(__file__).parents[1] / "node"


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts beside the packages that they import."""
    if os.environ.get("SERVE_APP_TEST_NODE") != "1":
        pytest.skip("set SERVE_APP_TEST_NODE=1 to run Node's clients (npm installs packages)")
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("no node and npm on PATH")
    folder = tmp_path_factory.mktemp("node") / "clients"
    shutil.copytree(SOURCES, folder)
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=folder, check=True, timeout=200)
    return folder


def node(command: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.parametrize("script", ["openai", "ai"])
async def test_nodes_clients(script: str, scripts: Path, skilled: Service) -> None:
    """Every helper of the client works: whole, streamed, tools, structured, several turns."""
    env = {**os.environ, "BASE_URL": str(skilled.base_url), "NO_PROXY": "127.0.0.1"}
    command = ["node", "--test", f"{script}.test.mjs"]
    run = await asyncio.to_thread(node, command, scripts, env)
    assert run.returncode == 0, run.stdout + run.stderr
