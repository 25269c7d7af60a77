"""Regular expressions, rewritten to the forms that llama.cpp obeys."""

import re

import pytest

from serve_app.engines.llamacpp.schemas.characters import UnsupportedPattern
from serve_app.engines.llamacpp.schemas.patterns import rewrite

# A pattern, strings that it must still match, and strings that it must not.
PATTERNS = [
    (r"^\d{4}-\d{2}$", ["2026-11"], ["٢٠٢٦-11", "2026-1", "x2026-11"]),
    ("abc", ["abc", "xabcx"], ["ab", ""]),
    ("^a|b$", ["a", "axx", "xxb"], ["xa", "bx"]),
    (r"^[^\d]+$", ["ab c"], ["a1", ""]),
    (r"^\w+\s\S$", ["ab_9 é"], ["a-b c", "ab  "]),
    ("^(?:a|b)*?c{2,}$", ["cc", "abccc"], ["abc"]),
    ("^(?<year>x)?[y-z]$", ["xy", "z"], ["x"]),
    (r"^a\.b\/c\-d$", ["a.b/c-d"], ["axb/c-d"]),
    ("^.{1,3}$", ["a", "é😀"], ["", "abcd"]),
    (r"^[\x41-\u0043\u{1F600}]$", ["A", "C", "😀"], ["D"]),
    ("^a{x$", ["a{x"], ["ax"]),
    ("^$", [""], ["a"]),
    ("", ["", "a"], []),
    ('^["a]$', ["a"], ["b"]),
]


@pytest.mark.parametrize(("pattern", "matched", "others"), PATTERNS)
def test_it_matches_the_same_strings(pattern: str, matched: list[str], others: list[str]) -> None:
    """Anchored, and of classes, groups and repetitions alone."""
    rewritten = rewrite(pattern)
    assert (rewritten[0], rewritten[-1]) == ("^", "$")
    assert all(re.fullmatch(rewritten[1:-1], text) for text in matched)
    assert not any(re.fullmatch(rewritten[1:-1], text) for text in others)


@pytest.mark.parametrize("character", ['"', "\\", "\n", "\x7f"])
@pytest.mark.parametrize("pattern", [".", r"\D", r"[^a]", r"\W"])
def test_no_class_has_what_json_escapes(pattern: str, character: str) -> None:
    """llama.cpp would write it into the JSON text as it is."""
    assert not re.fullmatch(rewrite(f"^{pattern}$")[1:-1], character)


REFUSED = {
    "(?=a)b": "a lookahead",
    "(?!a)b": "a lookahead",
    "(?<=a)b": "a lookbehind",
    "(?i)a": "a flag",
    r"(a)\1": "a back reference",
    r"\bfoo": "a word boundary",
    r"\p{L}": "a Unicode class",
    "a^b": "^ in the middle",
    "(a$)": "$ in the middle",
    '^"$': "a character that JSON escapes",
    "^\\n$": "a character that JSON escapes",
    "(": "parentheses",
    ")": "parentheses",
    "[a": "an unexpected end",
    "[z-a]": "an invalid range of characters",
    "a{3000}": "repetitions",
    "^([a]{1000}){1000}$": "repetitions",
    "(" * 50 + ")" * 50: "groups",
    "a" * 2000: "characters",
}


@pytest.mark.parametrize(("pattern", "words"), REFUSED.items(), ids=lambda text: text[:20])
def test_it_is_refused_by_name(pattern: str, words: str) -> None:
    """What llama.cpp can't obey is named."""
    with pytest.raises(UnsupportedPattern, match=re.escape(words)):
        rewrite(pattern)


@pytest.mark.parametrize(
    ("pattern", "bounds", "rewritten"),
    [
        ("^[a-z]+$", (0, 5), "^[a-z]{1,5}$"),
        ("^[a-z]+$", (3, None), "^[a-z]{3,}$"),
        ("^[a-z][0-9]*$", (0, 63), "^[a-z][0-9]{0,62}$"),
        ("^(ab)?$", (0, 2), "^([a][b]){0,1}$"),
    ],
)
def test_lengths_are_kept_too(pattern: str, bounds: tuple[int, int | None], rewritten: str) -> None:
    """minLength and maxLength beside a pattern go into its one variable part."""
    assert rewrite(pattern, *bounds) == rewritten


@pytest.mark.parametrize("pattern", ["^(ab)+$", "^a+b+$", "^a{6}$"])
def test_lengths_that_cannot_be_kept_are_refused(pattern: str) -> None:
    """A pattern whose strings may be too long says so."""
    with pytest.raises(UnsupportedPattern, match="length"):
        rewrite(pattern, 0, 5)
