"""`python -m tests.support.ollama_simulator`: takes the simulator's options and a few others."""

from collections.abc import Sequence

import uvloop

from serve_app.simulator.__main__ import serve
from serve_app.simulator.settings import parse_as
from tests.support.ollama_simulator.server import OllamaServer
from tests.support.ollama_simulator.settings import OllamaSettings
from tests.support.ollama_simulator.wire import OllamaConnection


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse_as(OllamaSettings, arguments)
    uvloop.run(serve(settings, OllamaServer, OllamaConnection))


if __name__ == "__main__":
    main()
