"""Reads metadata of API objects: labels and times."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Object = Mapping[str, Any]

PART_OF = "app.kubernetes.io/part-of"
LONG_AGO = datetime.min.replace(tzinfo=UTC)


def labels(manifest: Object) -> Object:
    return manifest["metadata"].get("labels") or {}


def read_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def created(metadata: Object) -> datetime:
    return read_time(metadata.get("creationTimestamp")) or LONG_AGO
