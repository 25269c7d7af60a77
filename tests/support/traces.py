"""Two public traces, if they are available: they are not part of this repository."""

import os
from pathlib import Path

import pytest

_BESIDE = [parent / "shared" for parent in Path(__file__).parents]
_NAMED = os.environ.get("SERVE_APP_TEST_SHARED")
FOLDER = next(
    (folder / "data" for folder in ([Path(_NAMED)] if _NAMED else _BESIDE) if folder.is_dir()),
    Path("shared"),
)
AZURE = FOLDER / "azure_llm_2023_conv.csv"
MOONCAKE = FOLDER / "mooncake_conversation.jsonl"
needed = pytest.mark.skipif(
    not (AZURE.is_file() and MOONCAKE.is_file()),
    reason="the public traces are not at hand: name their folder's parent in SERVE_APP_TEST_SHARED",
)
