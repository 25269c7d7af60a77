"""Translates llama.cpp's refusals for dialects that don't pass its words on.

llama.cpp words them for OpenAI's dialect or as its JSON library does, and answers 500 to some
mistakes of a request.
"""

import re

import orjson

from serve_app.engines.base import Answer
from serve_app.engines.llamacpp.client import PromptTooLong, Refusal, read_refusal
from serve_app.errors import BadRequest, EngineLost, ServiceError

_FIELD = re.compile(r"(?:Field '|Failed to parse )(\w+)'?: ")
_LIBRARY = re.compile(r"\[json\.exception\.\w+\.\d+\] ")
_TYPE = re.compile(r"type must be (\w+), but is (\w+)")
_DUMP = re.compile(r"(, got .*)?; \w+ = .*", re.DOTALL)  # the field's value, on many lines


async def refused(answer: Answer) -> Exception:
    """Return the exception for an answer other than 200; see `meaning` for PromptTooLong."""
    try:
        body = b"".join([piece async for piece in answer.body])
    finally:
        answer.close()
    return read_refusal(answer.status, body.decode(errors="replace"))


def meaning(refusal: Refusal) -> ServiceError:
    """Return the error of the service that a refusal stands for."""
    if isinstance(refusal, PromptTooLong):
        return refusal.error
    try:
        message = str(orjson.loads(str(refusal))["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = str(refusal)
    if "compute error" in message.lower():
        return EngineLost(message)
    return BadRequest(in_our_words(message))


def in_our_words(message: str) -> str:
    """Return `message` without the words of llama.cpp's JSON library.

    `Field 'seed': [json.exception.type_error.302] type must be number, but is array` becomes
    `seed: a value must be a number, not an array`.
    """
    field = _FIELD.match(message)
    rest = _DUMP.sub("", message[field.end() :]) if field else message
    rest = _TYPE.sub(_types, _LIBRARY.sub("", rest))
    return f"{field[1]}: {rest}" if field else rest


def _types(match: re.Match[str]) -> str:
    expected, actual = map(_with_article, match.groups())
    return f"a value must be {expected}, not {actual}"


def _with_article(kind: str) -> str:
    if kind == "null":
        return kind
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
