"""Texts compared as `diff -u` shows them."""

import difflib


def difference(now: str, then: str, of: str = "") -> str:
    """Empty for equal texts; `of` stands behind `now` and `then` in the header."""
    lines = difflib.unified_diff(
        now.splitlines(), then.splitlines(), f"now{of}", f"then{of}", lineterm=""
    )
    return "\n".join(lines)
