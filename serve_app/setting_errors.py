"""Sentences about settings that can't work."""

from pydantic import ValidationError

from serve_app.setting_names import setting_names, unknown
from serve_app.settings import Settings


def error_sentences(exc: ValidationError) -> list[str]:
    """Return a sentence for every error, after the name of its setting."""
    errors = exc.errors(include_url=False, include_input=False)
    return [
        _unknown_argument(error["loc"])
        if error["type"] == "extra_forbidden"
        else _sentence(error["loc"], error["msg"])
        for error in errors
    ]


def _unknown_argument(path: tuple[int | str, ...]) -> str:
    """Return a sentence about an unknown name in `path`; `pools.0.` stands before a pool's name."""
    start = 2 if path[0] == "pools" and len(path) > 2 else 0
    before = "".join(f"{part}." for part in path[:start])
    name = ".".join(map(str, path))
    return unknown(name, setting_names(Settings), before)


def _sentence(path: tuple[int | str, ...], message: str) -> str:
    return ": ".join(
        filter(None, [".".join(map(str, path)), message.removeprefix("Value error, ")])
    )
