"""Values in nested mappings by dotted names, such as `service.autoscaling.max_replicas`."""

from typing import Any


def set_dotted(mapping: dict[str, Any], name: str, value: Any) -> None:
    """Set a value in place, and add missing mappings on the path to it."""
    *path, key = name.split(".")
    for part in path:
        mapping = mapping.setdefault(part, {})
    mapping[key] = value
