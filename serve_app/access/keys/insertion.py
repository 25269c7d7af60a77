"""Adds a hash to a name's entry in the text of the file of keys, and changes nothing else."""

import json
from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def key_and_hash(key: str, key_hash: str) -> str:
    """Return the mapping of a key in clear text and of the hash of another one."""
    return f"{{key: {json.dumps(key, ensure_ascii=False)}, sha256: {key_hash}}}"


def with_hash(text: str, name: str, key_hash: str) -> str:
    """Return `text`, in the YAML form, with a further hash for `name`, before its others."""
    value = _child(yaml.compose(text, Loader=_Loader), name)
    if isinstance(value, yaml.ScalarNode):
        return _replaced(text, value, key_and_hash(value.value, key_hash))
    hashes = _child(value, "sha256")
    if hashes is None:
        return _inserted(text, value, f"sha256: {key_hash}")
    if isinstance(hashes, yaml.ScalarNode):
        return _replaced(text, hashes, f"[{key_hash}, {hashes.value}]")
    return _inserted(text, hashes, key_hash if hashes.flow_style else f"- {key_hash}")


def _child(node: Any, name: str) -> Any:
    return next((value for key, value in node.value if key.value == name), None)


def _replaced(text: str, node: Any, new: str) -> str:
    return text[: node.start_mark.index] + new + text[node.end_mark.index :]


def _inserted(text: str, node: Any, item: str) -> str:
    """Return `text` with a new first item in a mapping or a list."""
    start = node.start_mark.index
    if node.flow_style:
        return f"{text[: start + 1]}{item}, {text[start + 1 :]}"
    return f"{text[:start]}{item}\n{' ' * node.start_mark.column}{text[start:]}"
