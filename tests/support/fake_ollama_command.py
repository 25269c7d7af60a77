"""The commands of `ollama` that the project's scripts use, before the simulated engine.

It keeps its models as files in OLLAMA_MODELS, and a line for each download in `pulled` there. While
a file `full` exists, no model can be loaded.
"""

import os
import sys
import urllib.error
import urllib.request
from json import dumps, loads
from pathlib import Path
from typing import Any

MODELS = Path(os.environ["OLLAMA_MODELS"])
HOST = os.environ["OLLAMA_HOST"]


def main(command: str, *arguments: str) -> int:
    if command == "serve":
        return serve()
    try:
        return globals()[command](*arguments)
    except urllib.error.URLError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 1


def serve() -> int:
    from serve_app.simulator.__main__ import main as simulate

    names = ",".join(path.name for path in MODELS.glob("*:*"))
    host, _, port = HOST.rpartition(":")
    simulate(["--host", host, "--port", port, "--models", names])
    return 0


def ask(path: str, **body: Any) -> Any:
    data = dumps(body).encode() if body else None
    with urllib.request.urlopen(f"http://{HOST}{path}", data) as answer:
        return loads(answer.read() or "{}")


def list() -> int:
    ask("/api/tags")
    return 0


def ps() -> int:
    print("NAME  ID")
    for model in ask("/api/ps")["models"]:
        print(f"{model['name']}  0123456789ab")
    return 0


def show(model: str) -> int:
    if not (MODELS / model).exists():
        print(f"Error: model '{model}' not found", file=sys.stderr)
        return 1
    ask("/api/version")
    return 0


def pull(model: str) -> int:
    if model.startswith("absent"):
        print("Error: pull model manifest: file does not exist", file=sys.stderr)
        return 1
    with (MODELS / "pulled").open("a") as log:
        log.write(f"{model}\n")
    (MODELS / model).touch()
    return 0


def run(model: str, prompt: str) -> int:
    if (MODELS / "full").exists():
        print("loading\nError: model requires more system memory", file=sys.stderr)
        return 1
    if model.startswith("embed") and not prompt:
        print("Error: embedding models require input text.", file=sys.stderr)
        return 1
    ask("/api/generate", model=model, prompt=prompt, stream=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
