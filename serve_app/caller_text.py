"""Escapes texts of callers for logs, traces and the page of the fleet."""

import re

_MAX = 200
# Keys begin with `sk-`, as those of many services. A word such as `task-…` is not a key, but keys
# made by `keys new` are recognised within a word, too.
_KEY = re.compile(r"(?:(?<![A-Za-z])sk-|sk-llm-)[A-Za-z0-9_-]{8,}")
_SEARCHED = 5 * _MAX  # masks a key that the cut at _MAX halves; long texts cost little


def mask_keys(text: str) -> str:
    """Replace each text that looks like a key by `sk-***`: a client may put it anywhere."""
    return _KEY.sub("sk-***", text) if "sk-" in text else text


def printable(text: str) -> str:
    """Escape a caller's text for a log, so that it can't begin a line or colour a terminal.

    Keys in it are masked.
    """
    text = mask_keys(text[:_SEARCHED])[:_MAX]
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def one_word(text: str) -> str:
    """Escape a caller's text as `printable` does, and its spaces: it looks like one field."""
    return printable(text).replace(" ", "%20")
