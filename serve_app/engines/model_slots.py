"""The number of requests of a model that Ollama runs at the same time."""

from collections.abc import Iterable, Mapping

from serve_app.engines.base import ModelCard
from serve_app.model_names import full_name

# Families that Ollama 0.33 runs with one slot at any OLLAMA_NUM_PARALLEL (server/sched.go).
ONE_SLOT_FAMILIES = frozenset(
    {
        *("lfm2", "lfm2moe", "mllama", "nemotron_h", "nemotron_h_moe", "nemotron_h_omni"),
        *("qwen35", "qwen35moe", "qwen3next", "qwen3vl", "qwen3vlmoe"),
    }
)


def fewer_slots(
    cards: Iterable[ModelCard], slots: int, declared: Mapping[str, int]
) -> dict[str, int]:
    """Return the slots of the models that have fewer than `slots`."""
    by_name = {full_name(name): number for name, number in declared.items()}
    numbers = {card.name: by_name.get(full_name(card.name), _usual(card, slots)) for card in cards}
    return {name: number for name, number in numbers.items() if number < slots}


def _usual(card: ModelCard, slots: int) -> int:
    only_embeds = "completion" not in card.capabilities
    return 1 if only_embeds or card.family in ONE_SLOT_FAMILIES else slots
