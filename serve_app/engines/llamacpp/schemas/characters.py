"""Character classes of rewritten patterns, as ranges of code points.

No class has a character that JSON escapes.
"""

Ranges = list[tuple[int, int]]  # code points, both ends included

_LAST = 0x10FFFF
_UNWRITABLE: Ranges = [(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F), (0xD800, 0xDFFF)]
DIGIT: Ranges = [(0x30, 0x39)]
WORD: Ranges = [*DIGIT, (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
SPACE: Ranges = [(9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)]
SPACE += [(0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)]
SPACE += [(0xFEFF, 0xFEFF)]
LINE_ENDS: Ranges = [(10, 10), (13, 13), (0x2028, 0x2029)]


class UnsupportedPattern(Exception):
    """A pattern that llama.cpp can't obey; `str(error)` names the construct."""


def outside(ranges: Ranges) -> Ranges:
    """Return all writable characters except `ranges`."""
    free, first = [], 0
    for low, high in sorted([*ranges, *_UNWRITABLE]):
        if first < low:
            free.append((first, low - 1))
        first = max(first, high + 1)
    return [*free, (first, _LAST)] if first <= _LAST else free


def character_class(ranges: Ranges) -> str:
    """Write the writable characters in `ranges`. Raises UnsupportedPattern if there are none."""
    writable = [(low, high) for low, high in outside(outside(ranges)) if low <= high]
    if not writable:
        raise UnsupportedPattern("a character that JSON escapes")
    return f"[{''.join(_range(low, high) for low, high in writable)}]"


def _range(low: int, high: int) -> str:
    return _char(low) if low == high else f"{_char(low)}-{_char(high)}"


def _char(code: int) -> str:
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    return (
        f"\\x{code:02X}" if code < 0x80 else f"\\u{code:04X}" if code < 2**16 else f"\\U{code:08X}"
    )
