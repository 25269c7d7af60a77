"""The base of all settings: a strict, frozen model, and rules for its values."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic_settings import NoDecode

from serve_app import addresses
from serve_app.model_names import full_name


def split_list(value: Any) -> Any:
    """Split a list in the form of environment variables and command lines: `a,b`."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


CommaSeparated = BeforeValidator(split_list)
Models = Annotated[
    tuple[Annotated[str, AfterValidator(addresses.model_name)], ...], NoDecode, CommaSeparated
]


class StrictModel(BaseModel):
    """A frozen model that refuses unknown fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )


def refuse(*rules: tuple[bool, str]) -> None:
    """Raise ValueError with the sentence of the first broken rule."""
    for broken, sentence in rules:
        if broken:
            raise ValueError(sentence)


def duplicates(items: Iterable[str]) -> list[str]:
    return [item for item, count in Counter(items).items() if count > 1]


def duplicate_models(names: tuple[str, ...]) -> list[str]:
    return duplicates(full_name(name) for name in names)
