"""Behaves like `ollama serve`, with the simulated engine inside.

A child process represents llama-server: SIGTERM ends it, SIGKILL leaves it behind. FAKE_OLLAMA
makes it misbehave: `exit` (exits at once), `hang` (never listens), `slow` (listens late).
FAKE_OLLAMA_MODELS lists its models; FAKE_OLLAMA_SEEN is a file into which it writes its
environment.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

# This file is run by its path, from any folder.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.ollama_simulator.__main__ import main as simulate

_LLAMA_SERVER = "import signal; signal.pause()  # llama-server"


def main() -> int:
    if sys.argv[1:] != ["serve"]:
        print("Error: unknown command", file=sys.stderr)
        return 2
    behaviour = os.environ.get("FAKE_OLLAMA", "")
    if behaviour == "exit":
        print("Error: listen tcp: bind: address already in use", file=sys.stderr)
        return 1
    if behaviour == "hang":
        signal.pause()
    if behaviour == "slow":
        time.sleep(0.5)
    if path := os.environ.get("FAKE_OLLAMA_SEEN"):
        Path(path).write_text(json.dumps(dict(os.environ)))
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", _LLAMA_SERVER])
    atexit.register(child.kill)
    _serve()
    return 0


def _serve() -> None:
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    options = {
        "--host": host,
        "--port": port,
        "--models": os.environ.get("FAKE_OLLAMA_MODELS", ""),
        "--slots": os.environ["OLLAMA_NUM_PARALLEL"],
        "--decode-tokens-per-s": "500",
        "--pull-s": "0.3",
        "--pull-bytes": "1000000",
    }
    simulate([word for option in options.items() for word in option])


if __name__ == "__main__":
    sys.exit(main())
