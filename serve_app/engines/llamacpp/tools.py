"""Tools and their choice, which the Responses and Messages APIs name differently."""

from serve_app.engines.base import ModelCard
from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.model_names import full_name


def check_can_call(model: str, card: ModelCard) -> None:
    """Raises Refusal 400, in Ollama's words, for a model without tools."""
    if "tools" not in card.capabilities:
        raise Refusal(400, f"{full_name(model)} does not support tools")


def only(tools: list[Json], names: list[str], where: str) -> list[Json]:
    """Those of `tools` that are named. Raises Refusal 400 for a name that none of them has."""
    known = {tool["function"]["name"]: tool for tool in tools}
    for name in names:
        if name not in known:
            raise Refusal(400, f"{where}: no tool is named {name!r}")
    return [known[name] for name in names]
