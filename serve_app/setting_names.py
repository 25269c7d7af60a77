"""The names of settings, and a proposal for a mistyped one."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from types import UnionType
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the name of every setting with dots, such as `engine.slots`; groups come first."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if inner := nested_model(field):
            yield from setting_names(inner, f"{prefix}{name}.")


def nested_model(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a nested setting, which may also be absent."""
    outer: Any = field.annotation
    for annotation in get_args(outer) if isinstance(outer, UnionType) else (outer,):
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
    return None


def unknown(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a sentence about an unknown name, with the most similar known name.

    `prefix`: the part of `name` that stands before every known name.
    """
    similar = get_close_matches(name.removeprefix(prefix), list(known), n=1)
    hint = f"did you mean {prefix}{similar[0]}? All names are" if similar else "all names are"
    return f"{name} is not a setting: {hint} in docs/settings.md"
