"""Aliases: names that callers know, for one model, or for several by weight and in order."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from serve_app import addresses
from serve_app.model_names import full_name, plain_name, short_name
from serve_app.strict_model import StrictModel, duplicates, split_list

ModelName = Annotated[str, AfterValidator(addresses.model_name)]


class AliasTarget(StrictModel):
    """One model behind an alias."""

    model: ModelName = Field(description="Name of the model.")
    weight: float | None = Field(
        None, gt=0, description="Share of the requests that this model gets first."
    )


def _listed(value: Any) -> Any:
    """Return a list of targets from one name, from `a,b`, or from names and targets."""
    value = split_list(value)
    values = value if isinstance(value, list | tuple) else [value]
    return [{"model": item} if isinstance(item, str) else item for item in values]


Targets = Annotated[tuple[AliasTarget, ...], Field(min_length=1), BeforeValidator(_listed)]


def order(targets: tuple[AliasTarget, ...], draw: float) -> tuple[str, ...]:
    """Return the models to try, one after the other.

    The first one is drawn by weight, or is the first of the list where no target has a weight. The
    others follow as they are listed. `draw`: a random number, at least 0 and below 1.
    """
    first = _first(targets, draw)
    others = [target for target in targets if target is not first]
    return tuple(short_name(target.model) for target in (first, *others))


def _first(targets: tuple[AliasTarget, ...], draw: float) -> AliasTarget:
    rest = draw * sum(target.weight or 0 for target in targets)
    for target in targets:
        rest -= target.weight or 0
        if target.weight and rest < 0:
            return target
    return targets[0]


def alias_problems(
    aliases: Mapping[str, tuple[AliasTarget, ...]], models: Iterable[str]
) -> Iterator[str]:
    """Yield a sentence for every alias that can't work beside `models`."""
    known = set(map(full_name, models))
    for name in duplicates(map(plain_name, aliases)):
        yield f"aliases names {name} twice: remove one"
    for alias, targets in aliases.items():
        if full_name(alias) in known:
            yield f"aliases: {alias} is a model's own name: choose another one for the alias"
        for target in targets:
            if full_name(target.model) not in known:
                yield f"aliases: {alias} leads to {target.model}, which no pool serves"
        for model in duplicates(plain_name(target.model) for target in targets):
            yield f"aliases: {alias} names {model} twice: remove one"
