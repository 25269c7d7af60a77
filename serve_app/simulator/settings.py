"""Everything that can be declared about a simulated engine, and its command line."""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any


def _option(default: Any, description: str) -> Any:
    return field(default=default, metadata={"help": description})


@dataclass(frozen=True, slots=True)
class Settings:
    """A rate of 0 means instant; lists of models are given separated by commas."""

    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(0, "port to listen on; 0 takes a free one")
    models: tuple[str, ...] = _option(("smollm2:135m",), "models that are there, by comma")
    tools_models: tuple[str, ...] = _option((), "those of them that can call tools")
    thinking_models: tuple[str, ...] = _option((), "those of them that can think")
    embed_models: tuple[str, ...] = _option(
        (), "those of them that embed and do nothing else; if empty, every model does both"
    )
    slots: int = _option(4, "requests that run at the same time; the others wait in one FIFO")
    context_length: int = _option(4096, "tokens of context of one slot")
    cold_start_s: float = _option(0.0, "seconds before the server listens at all")
    load_s: float = _option(0.0, "seconds that the first request of a model waits for its load")
    prefill_tokens_per_s: float = _option(0.0, "prompt tokens per second of one slot; 0: instant")
    decode_tokens_per_s: float = _option(0.0, "answer tokens per second of one stream; 0: instant")
    decode_slowdown: float = _option(
        0.0, "s: each of n streams decodes at rate/(1+s*(n-1)); 0: streams don't slow each other"
    )
    answer_tokens: int = _option(64, "tokens of an answer that no limit cuts")
    embedding_dim: int = _option(16, "numbers in one embedding")
    seed: int = _option(0, "other seeds give other answers")
    pull_bytes: int = _option(1_000_000, "bytes of a model that is pulled")
    pull_s: float = _option(0.0, "seconds that a pull takes")
    offline: bool = _option(False, "every pull fails as it does without a network")


def parse(argv: Sequence[str] | None = None) -> Settings:
    """The settings of a command line. Exits as argparse does if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m serve_app.simulator",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for each in fields(Settings):
        parser.add_argument("--" + each.name.replace("_", "-"), **_argument(each))
    return Settings(**vars(parser.parse_args(argv)))


def _argument(each: Field[Any]) -> dict[str, Any]:
    assert each.default is not MISSING
    common = {"default": each.default, "help": each.metadata["help"]}
    if isinstance(each.default, bool):
        return {"action": "store_true", **common}
    if isinstance(each.default, tuple):
        return {"type": _names, "metavar": "NAME,…", **common}
    return {"type": type(each.default), "metavar": "N" if each.name != "host" else "HOST", **common}


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
