"""Texts of callers, made fit for logs, traces and the page of the fleet."""

import re

_MAX = 200
# Keys begin with `sk-`, as many services' do. A word such as `task-…` is none, but those made by
# `keys new` are found within a word too.
_KEY = re.compile(r"(?:(?<![A-Za-z])sk-|sk-llm-)[A-Za-z0-9_-]{8,}")
_SEARCHED = 5 * _MAX  # a key that the cut at _MAX halves is found, and long texts cost little


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
