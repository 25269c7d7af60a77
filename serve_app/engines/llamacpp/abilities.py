"""Refuses requests beyond a model's abilities, in Ollama's words and in every dialect."""

from typing import Any

from serve_app.engines.base import ModelCard
from serve_app.engines.llamacpp.client import Refusal
from serve_app.go_json import quote
from serve_app.model_names import full_name


def check_completes(model: str, card: ModelCard, verb: str) -> None:
    """Raise Refusal 400 for a model that only embeds. `verb`: chat or generate."""
    if "completion" not in card.capabilities:
        raise Refusal(400, f"{quote(model)} does not support {verb}")


def check_thinks(model: str, card: ModelCard, think: Any) -> None:
    """Raise Refusal 400 for a request to think to a model that can't."""
    if think and "thinking" not in card.capabilities:
        raise Refusal(400, f"{quote(model)} does not support thinking")


def check_tools(model: str, card: ModelCard, tools: Any) -> None:
    """Raise Refusal 400 for tools that the model's template has no place for."""
    if tools and "tools" not in card.capabilities:
        raise Refusal(400, f"{full_name(model)} does not support tools")


def check_suffix(model: str, suffix: Any) -> None:
    """Raise Refusal 400 for a suffix, because the engine can't insert text, with any model."""
    if suffix:
        raise Refusal(400, f"{full_name(model)} does not support insert")
