"""The models of the document: size, context, abilities, and where they are loaded."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from serve_app.engines.base import ModelCard
from serve_app.fleet.pools import PoolDeployment
from serve_app.pool_settings import Pool


def model_entries(
    pools: Iterable[Pool], deployments: Mapping[str, PoolDeployment]
) -> list[dict[str, Any]]:
    """Describe the models of all pools, with the replicas that keep them loaded."""
    return [model for pool in pools for model in _models_of(pool, deployments.get(pool.name))]


def _models_of(pool: Pool, deployment: PoolDeployment | None) -> Iterator[dict[str, Any]]:
    """Yield a pool's models; those that no engine has listed yet have no card."""
    cards: dict[str, ModelCard] = {}
    where: dict[str, list[str]] = {}
    for member in deployment.members if deployment else ():
        engine = member.report.engine if member.report else None
        for card in engine.status.models if engine else ():
            cards[card.name] = card
            if card.loaded:
                where.setdefault(card.name, []).append(member.id)
    for name in cards or pool.models:
        yield _model(pool, name, cards.get(name), where.get(name, []))


def _model(pool: Pool, name: str, card: ModelCard | None, where: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "pool": pool.name,
        "loaded_in": where,
        "size": card.size if card else None,
        "size_vram": card.size_vram if card else None,
        "context_length": card.loaded_context_length if card else pool.engine.context_length,
        "trained_context_length": card.context_length if card else None,
        "parameter_size": card.parameter_size if card else "",
        "quantization": card.quantization_level if card else "",
        "family": card.family if card else "",
        "capabilities": list(card.capabilities) if card else [],
    }
