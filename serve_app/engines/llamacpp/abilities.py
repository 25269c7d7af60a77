"""What a model can't do, refused in Ollama's words, whatever the dialect of the request."""

from typing import Any

from serve_app.engines.base import ModelCard
from serve_app.engines.llamacpp.client import Refusal
from serve_app.go_json import quote
from serve_app.model_names import full_name


def check_completes(model: str, card: ModelCard, verb: str) -> None:
    """Raises Refusal 400 for a model that only embeds; `verb`: chat or generate."""
    if "completion" not in card.capabilities:
        raise Refusal(400, f"{quote(model)} does not support {verb}")


def check_thinks(model: str, card: ModelCard, think: Any) -> None:
    """Raises Refusal 400 when thoughts are asked of a model that has none."""
    if think and "thinking" not in card.capabilities:
        raise Refusal(400, f"{quote(model)} does not support thinking")


def check_tools(model: str, card: ModelCard, tools: Any) -> None:
    """Raises Refusal 400 when tools are given to a model whose template has no place for them."""
    if tools and "tools" not in card.capabilities:
        raise Refusal(400, f"{full_name(model)} does not support tools")


def check_suffix(model: str, suffix: Any) -> None:
    """Raises Refusal 400 for a text after the gap: the engine fills none, whatever the model."""
    if suffix:
        raise Refusal(400, f"{full_name(model)} does not support insert")
