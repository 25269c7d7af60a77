"""Runs llama.cpp's own HTTP server on 127.0.0.1 in this process, until SIGTERM or SIGINT.

    python -m serve_app.engines.llamacpp.server --model FILE.gguf --alias NAME --port N

Exits with 0 after such a signal. Exits with 1, and a sentence on stderr's last line, when it can't
start.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serve_app.engines.llamacpp.gguf.header import GgufHeader, read_header
from serve_app.engines.llamacpp.options import OPEN_ENDED_CONTEXTS
from serve_app.errors import ServiceError, SettingsError

# A random port is not a secret, so the key keeps web pages and other processes out.
KEY_VARIABLE = "LLAMACPP_ENGINE_KEY"
BATCH_SIZE = 512  # during a batch all requests wait, and no disconnect is noticed
_CONTEXT_STEP = 256
_MEAN_POOLING = 1
_ERRORS_ONLY = 1  # 2 warns of every repeated prompt


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        server = serve(options)
    except ServiceError as exc:
        print(f"llama.cpp: {exc}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    print(f"llama.cpp: {options.alias} on {server.listening_address}", file=sys.stderr)
    while True:
        signal.pause()


def serve(options: argparse.Namespace) -> Any:
    """Start a server, which runs in native threads as long as the returned object lives.

    Raises SettingsError when xllamacpp is missing, the model is broken or the port is taken.
    """
    header = read_header(options.model)
    try:
        import xllamacpp
    except ImportError as exc:
        raise SettingsError("llama.cpp is not installed: run pip install xllamacpp") from exc
    try:
        return xllamacpp.Server(_parameters(xllamacpp, options, header))
    except RuntimeError as exc:
        raise SettingsError(
            f"llama.cpp can't serve {options.model} on port {options.port}: see the lines above"
        ) from exc


def slot_tokens(header: GgufHeader, context_length: int) -> int:
    """Return the tokens of a slot for a `context_length`.

    llama.cpp rounds up to a multiple of 256, and stops at the context of the model's training.
    """
    rounded = -(-context_length // _CONTEXT_STEP) * _CONTEXT_STEP
    return min(rounded, header.number("context_length") or rounded)


def batch_size(header: GgufHeader, context_length: int) -> int:
    """Return the tokens of a batch: those of the context where a model only embeds.

    llama.cpp embeds at most one batch. Ollama chooses the same size.
    """
    return context_length if header.only_embeds else min(BATCH_SIZE, context_length)


def _parameters(xllamacpp: Any, options: argparse.Namespace, header: GgufHeader) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {options.alias}
    params.hostnames, params.port = ["127.0.0.1"], options.port
    params.n_parallel = options.slots
    params.n_ctx = options.slots * options.context_length
    params.n_predict = OPEN_ENDED_CONTEXTS * options.context_length
    params.ctx_shift = True  # a full context loses its oldest half, as in Ollama
    batch = options.batch_size or batch_size(header, options.context_length)
    params.n_batch = params.n_ubatch = batch
    params.embedding = True
    if not header.only_embeds:  # a model for embeddings has its own pooling
        params.pooling_type = xllamacpp.llama_pooling_type(_MEAN_POOLING)
    params.cache_ram_mib = options.cache_ram_mib
    params.sse_ping_interval = -1  # a comment must not pass for the first token
    params.use_jinja = True
    params.ui = False
    params.cors_origins, params.cors_origins_explicit = "http://127.0.0.1", True
    if key := os.environ.pop(KEY_VARIABLE, ""):
        params.api_keys = [key]
    params.verbosity = options.verbosity
    threads = options.threads or _spare_cores()
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    if options.chat_template:
        params.chat_template = options.chat_template.read_text()
    return params


def _spare_cores() -> int:
    """Return the number of cores but one.

    llama.cpp's threads wait for each other by spinning. Where another process needed one of their
    cores, 2 threads on 2 cores gave 1 token/s, and 1 thread gave 41.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _leave(number: int, frame: object) -> None:
    os._exit(0)  # skips llama.cpp's threads, which would finish their batch for seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serve_app.engines.llamacpp.server", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="GGUF file")
    add("--alias", required=True, help="name of the model in answers")
    add("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    add("--slots", type=int, default=4, help="requests answered at a time (%(default)s)")
    add("--context-length", type=int, default=4096, help="tokens of one slot (%(default)s)")
    add("--threads", type=int, default=0, help="0: all cores but one (%(default)s)")
    batch = f"tokens of prompts evaluated at a time; 0: {BATCH_SIZE}, or, where a model only embeds"
    add("--batch-size", type=int, default=0, help=f"{batch}, the context length (%(default)s)")
    add("--cache-ram-mib", type=int, default=256, help="MiB of old prompts kept (%(default)s)")
    add("--chat-template", type=Path, help="Jinja file to use in place of the model's own")
    add("--verbosity", type=int, default=_ERRORS_ONLY, help="1 errors, 2 warnings (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
