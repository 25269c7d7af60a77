"""Reads Ollama's answers in JSON.

No answer is trusted, because another service or a login page may listen at the address.
"""

from typing import Any, TypeVar

import httpx
import orjson

from serve_app.errors import EngineError
from serve_app.model_names import full_name

Json = dict[str, Any]
_T = TypeVar("_T")


def json_object(answer: httpx.Response) -> Json:
    """Return the JSON object in `answer`. Raises EngineError for another answer."""
    value = json_value(answer.content)
    if answer.status_code != 200 or not isinstance(value, dict):
        raise unlike_ollama(answer)
    return value


def json_value(text: bytes | str) -> Any:
    """Return the value of a JSON text; None for another text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def unlike_ollama(answer: httpx.Response) -> EngineError:
    """Return the error for an answer that is not Ollama's."""
    request, kind = answer.request, answer.headers.get("content-type", "without a type")
    return EngineError(
        f"{request.method} {request.url} answered status {answer.status_code}, {kind}, "
        f"{answer.content[:80]!r}: this is not Ollama"
    )


async def listing(http: httpx.AsyncClient, path: str) -> dict[str, Json]:
    """Return a listing's entries by full name. Raises EngineError for another answer."""
    answer = await http.get(path)
    value = json_object(answer)
    entries = value.get("models") or []  # Go may write null for an empty list
    is_listing = "models" in value and isinstance(entries, list)
    if not is_listing or not all(map(_is_named, entries)):
        raise unlike_ollama(answer)
    return {full_name(model["name"]): model for model in entries}


def _is_named(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def field(source: Json, key: str, default: _T) -> _T:
    """Return `source[key]`, or `default` where the value has another type."""
    value = source.get(key)
    return value if isinstance(value, type(default)) else default
