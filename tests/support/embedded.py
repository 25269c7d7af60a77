"""The embedded engine behind the service's API, on a real socket, with any chat template."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from serve_app.api.build import build_api
from serve_app.dispatch.admission import Admission
from serve_app.dispatch.local import LocalDispatcher
from serve_app.engine_settings import EngineSettings
from serve_app.engines.base import Answer, Call, EngineStatus, Priority, State
from serve_app.engines.driver import EngineInfo
from serve_app.engines.http1 import HttpClient
from serve_app.engines.llamacpp.engine import LlamaCpp
from serve_app.engines.llamacpp.gguf.card import model_card
from serve_app.engines.process import free_port
from serve_app.pool_settings import Pool
from serve_app.settings import Settings
from tests.support.service import Noted, Service, listening

MODEL, CONTEXT, LONG_CONTEXT = "smollm2:135m", 512, 2048
Process = subprocess.Popen[str]

# With tools and thoughts, which SmolLM2's own template lacks.
TEMPLATE = """\
{%- if tools %}<|im_start|>system
You may call functions. Tools:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
Answer with <tool_call>
{"name": <name>, "arguments": <object>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "assistant" %}<|im_start|>assistant
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>
{% endif %}{{ message.content or "" }}
{%- for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% elif message.role == "tool" %}<|im_start|>user
{{ message.content }}<|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@contextmanager
def llama_server(gguf: Path, *options: str) -> Iterator[tuple[str, Process]]:
    """Run a llama.cpp server in a child process; yield its address."""
    process, port = _start(gguf, options)
    with process:
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


def _start(gguf: Path, options: tuple[str, ...]) -> tuple[Process, int]:
    """Start a server; repeat it if another process has taken its port meanwhile."""
    lines: list[str] = []
    for _ in range(3):
        port = free_port()
        command = [sys.executable, "-m", "serve_app.engines.llamacpp.server", "--model", str(gguf)]
        command += ["--alias", MODEL, "--port", str(port), "--slots", "2"]
        command += ["--context-length", str(CONTEXT), *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if " on http://" in line:
                return process, port
            lines.append(line)
        process.communicate()
    raise AssertionError("it did not start: " + "".join(lines[-20:]))


class _Running:
    """An engine whose process a fixture starts and stops."""

    def __init__(self, client: Any, info: EngineInfo) -> None:
        self._client = client
        self.status = EngineStatus(State.READY, models=info.models)

    async def ready(self) -> None:
        """Do nothing: the server is ready."""

    async def stop(self) -> None:
        """Do nothing: the fixture stops the server."""

    async def send(self, call: Call) -> Answer:
        answer: Answer = await self._client.send(call)
        return answer


@asynccontextmanager
async def serving_llama(
    url: str, gguf: Path, *capabilities: str, context: int = LONG_CONTEXT, **settings: Any
) -> AsyncIterator[Service]:
    """Run a service before the llama.cpp server at `url`. `capabilities`: additional ones."""
    pool = Pool(models=(MODEL,), engine=EngineSettings(kind="llamacpp", context_length=context))
    built = Settings(models=(MODEL,), engine=pool.engine, **settings)
    card = model_card(gguf, MODEL, context)
    card = replace(card, capabilities=(*card.capabilities, *capabilities))
    async with HttpClient() as http:
        info = EngineInfo("0.33.0", (card,))
        kind = LlamaCpp(pool, http, built.first_token_timeout_s)
        engine: Any = _Running(kind.client(url, info), info)
        admission = Admission(2, 8, dict.fromkeys(Priority, 20))
        dispatcher = LocalDispatcher(
            engine, admission, built.generation_timeout_s, built.engine_wait_s
        )
        noted = Noted()
        api = build_api(built, dispatcher, noted, engine.stop)
        async with (
            listening(api) as address,
            Service(address, noted, engine, admission) as service,
        ):
            yield service
