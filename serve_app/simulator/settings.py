"""The settings of a simulated engine and the command line that reads them."""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeVar


def option(default: Any, description: str) -> Any:
    """Declare a field that is also an option of the command line."""
    return field(default=default, metadata={"help": description})


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """Declares an engine's models, slots and speed. A rate of 0 means instant."""

    host: str = option("127.0.0.1", "Address to listen on.")
    port: int = option(0, "Port to listen on; 0 takes a free one.")
    models: tuple[str, ...] = option(("smollm2:135m",), "Models to serve, separated by commas.")
    tools_models: tuple[str, ...] = option((), "Those of the models that can call tools.")
    thinking_models: tuple[str, ...] = option((), "Those of the models that can think.")
    embed_models: tuple[str, ...] = option(
        (), "Those of the models that only embed; if empty, every model chats and embeds."
    )
    slots: int = option(
        4,
        "Requests of one model that run at the same time (1 for those that only embed); the others "
        "wait in one FIFO for each model.",
    )
    context_length: int = option(4096, "Context of one slot in tokens.")
    cold_start_s: float = option(0.0, "Seconds before the server listens.")
    load_s: float = option(0.0, "Seconds to load a model when its first request arrives.")
    load_mib_per_s: float = option(0.0, "MiB per second by which a load takes longer; 0: by none.")
    unload_s: float = option(0.0, "Seconds until an unloaded model has given its memory back.")
    max_loaded_models: int = option(0, "Models that are loaded at the same time; 0: all of them.")
    memory_mib: int = option(0, "MiB for loaded models; 0: enough.")
    model_mib: tuple[str, ...] = option((), "MiB of loaded models as NAME=MIB; else 198.")
    prefill_tokens_per_s: float = option(0.0, "Prompt tokens per second of one slot; 0: instant.")
    decode_tokens_per_s: float = option(0.0, "Answer tokens per second of one stream; 0: instant.")
    decode_slowdown: float = option(
        0.0, "The factor s: each of n streams decodes at rate/(1+s*(n-1)); 0: at the full rate."
    )
    answer_tokens: int = option(64, "Tokens of an answer, unless a limit or a stop ends it before.")
    embedding_dim: int = option(16, "Dimensions of an embedding.")
    seed: int = option(0, "Seed of the answers and the embeddings.")


_AnySettings = TypeVar("_AnySettings", bound=SimulatorSettings)


def parse_settings(argv: Sequence[str] | None = None) -> SimulatorSettings:
    """Parse the options of `python -m serve_app.simulator`. Exits as argparse does on errors."""
    return parse_as(SimulatorSettings, argv)


def parse_as(kind: type[_AnySettings], argv: Sequence[str] | None) -> _AnySettings:
    """Parse a command line that has an option for each field of `kind`."""
    parser = argparse.ArgumentParser(
        prog="python -m serve_app.simulator",
        description="Serve a stand-in for Ollama that answers at a declared speed. "
        "A rate of 0 means instant.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for setting in fields(kind):
        parser.add_argument("--" + setting.name.replace("_", "-"), **_argument(setting))
    return kind(**vars(parser.parse_args(argv)))


def _argument(setting: Field[Any]) -> dict[str, Any]:
    assert setting.default is not MISSING
    common = {"default": setting.default, "help": setting.metadata["help"]}
    if isinstance(setting.default, bool):
        return {"action": "store_true", **common}
    if isinstance(setting.default, tuple):
        return {"type": _names, "metavar": "NAME,…", **common}
    metavar = "HOST" if setting.name == "host" else "N"
    return {"type": type(setting.default), "metavar": metavar, **common}


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
