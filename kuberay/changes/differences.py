"""Compares texts as `diff -u` does."""

import difflib


def difference(now: str, then: str, of: str = "") -> str:
    """Return the difference, empty for equal texts; `of` follows `now` and `then` in its header."""
    lines = difflib.unified_diff(
        now.splitlines(), then.splitlines(), f"now{of}", f"then{of}", lineterm=""
    )
    return "\n".join(lines)
