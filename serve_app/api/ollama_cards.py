"""Models in the terms of Ollama's listings."""

import time

from serve_app.api.endpoint import Payload
from serve_app.engines.base import ModelCard
from serve_app.go_json import rfc3339


def tag(card: ModelCard) -> Payload:
    """Return one entry of `GET /api/tags`."""
    return {
        "name": card.name,
        "model": card.name,
        "modified_at": card.modified_at,
        "size": card.size,
        "digest": card.digest,
        "details": card.details()
        | {"context_length": card.context_length, "embedding_length": card.embedding_length},
        "capabilities": list(card.capabilities),
    }


# Ollama's expiry for keep_alive -1: Go's longest duration from now on.
_FOR_EVER_NS = 2**63 - 1


def running(card: ModelCard) -> Payload:
    """Return one entry of `GET /api/ps`."""
    return {
        "name": card.name,
        "model": card.name,
        "size": card.size_loaded,
        "digest": card.digest,
        "details": card.details(),
        "expires_at": rfc3339(time.time_ns() + _FOR_EVER_NS),
        "size_vram": card.size_vram,
        "context_length": card.loaded_context_length,
    }
