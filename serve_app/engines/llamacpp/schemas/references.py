"""Resolves references (`$ref`) within a JSON schema."""

from typing import Any
from urllib.parse import unquote

from serve_app.engines.llamacpp.client import Json
from serve_app.engines.llamacpp.schemas.merging import UnsupportedSchema


def resolve(root: Json, pointer: str, path: str) -> Any:
    """Return the part of `root` at a JSON pointer. Raises UnsupportedSchema, which names `path`."""
    if pointer != "#" and not pointer.startswith("#/"):
        raise UnsupportedSchema("$ref", path, f"{pointer[:200]!r} is not in the schema itself")
    target: Any = root
    for part in pointer.split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and key.isdecimal() and int(key) < len(target):
            target = target[int(key)]
        elif isinstance(target, dict) and key in target:
            target = target[key]
        else:
            raise UnsupportedSchema("$ref", path, f"{pointer[:200]!r} does not exist")
    return target
