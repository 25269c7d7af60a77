"""Invented log probabilities in the form that both dialects share."""

from collections.abc import Sequence
from typing import Any

from serve_app.go_json import encode
from serve_app.simulator.model_output import Token

_SURE = -0.25


def logprobs(tokens: Sequence[Token], top: int) -> bytes:
    """Encode an entry for each token, with `top` alternatives."""
    return encode([_entry(token.text, top) for token in tokens])


def _entry(token: str, top: int) -> dict[str, Any]:
    entry = _probability(token, _SURE)
    others = [_probability(token + "s" * rank, _SURE - rank) for rank in range(top)]
    return {**entry, "top_logprobs": others} if top else entry


def _probability(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}
