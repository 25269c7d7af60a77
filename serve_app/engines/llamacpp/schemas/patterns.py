"""Regular expressions of JSON schemas, rewritten to the few forms that llama.cpp obeys.

llama.cpp silently reads other forms as "any string". A rewritten pattern consists of character
classes, groups, alternatives and repetitions. It has no character that JSON escapes: classes lose
such characters, and a pattern that needs one is refused.
"""

import re
from dataclasses import dataclass, replace

from serve_app.engines.llamacpp.schemas.characters import (
    DIGIT,
    LINE_ENDS,
    SPACE,
    WORD,
    Ranges,
    UnsupportedPattern,
    character_class,
    outside,
)

MAX_LENGTH, MAX_NESTING, MAX_REPETITIONS, MAX_WEIGHT = 1000, 20, 2000, 5000

_CLASSES = {"d": DIGIT, "w": WORD, "s": SPACE}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
_REFUSED = {"b": "a word boundary", "B": "a word boundary", "k": "a back reference"}
_REFUSED |= {"p": "a Unicode class", "P": "a Unicode class", "c": "a control character"}
_REFUSED |= dict.fromkeys("123456789", "a back reference")
_CODE = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}")
_TIMES = re.compile(r"([*+?])|\{(\d{1,6})(,(\d{0,6}))?\}")
_NAME = re.compile(r"\?:|\?P?<[A-Za-z_]\w*>")


@dataclass(frozen=True)
class _Term:
    """A repeated atom: `low` to `high` times, each of `shortest` to `longest` characters."""

    atom: str
    shortest: int
    longest: int | None
    low: int = 1
    high: int | None = 1
    parts: int = 1  # classes of characters in the atom, repetitions written out

    def weight(self) -> int:
        return self.parts * max(self.low, self.high or 0, 1)

    def sizes(self) -> tuple[int, int | None]:
        endless = self.high is None or self.longest is None
        longest = None if endless else (self.longest or 0) * (self.high or 0)
        return self.shortest * self.low, 0 if self.high == 0 or self.longest == 0 else longest

    def text(self) -> str:
        if (self.low, self.high) == (1, 1):
            return self.atom
        return f"{self.atom}{{{self.low},{'' if self.high is None else self.high}}}"


_Branch = list[_Term]


def rewrite(pattern: str, shortest: int = 0, longest: int | None = None) -> str:
    """Return an anchored pattern whose strings match `pattern` and have a length in the bounds.

    Raises UnsupportedPattern.
    """
    if len(pattern) > MAX_LENGTH:
        raise UnsupportedPattern(f"more than {MAX_LENGTH} characters")
    branches = _PatternReader(pattern).read()
    if _weight(branches) > MAX_WEIGHT:
        raise UnsupportedPattern("too many nested repetitions")
    texts = ["".join(term.text() for term in _narrow(b, shortest, longest)) for b in branches]
    return f"^{texts[0]}$" if len(texts) == 1 else f"^({'|'.join(texts)})$"


def _narrow(branch: _Branch, shortest: int, longest: int | None) -> _Branch:
    """Change the repetitions of the one variable term until all lengths are in the bounds."""
    min_size, max_size = _sizes(branch)
    if min_size >= shortest and (longest is None or (max_size is not None and max_size <= longest)):
        return branch
    variable = [i for i, term in enumerate(branch) if term.low != term.high]
    if len(variable) != 1 or any((t.shortest, t.longest) != (1, 1) for t in branch):
        raise UnsupportedPattern("lengths that minLength and maxLength beside it don't allow")
    (index,) = variable
    term = branch[index]
    fixed = min_size - term.low
    low = max(term.low, shortest - fixed)
    highs = [h for h in (term.high, None if longest is None else longest - fixed) if h is not None]
    high = min(highs) if highs else None
    if high is not None and high < low:
        raise UnsupportedPattern("no string of a length that minLength and maxLength allow")
    return [*branch[:index], replace(term, low=low, high=high), *branch[index + 1 :]]


def _weight(branches: list[_Branch]) -> int:
    return sum(term.weight() for branch in branches for term in branch)


def _sizes(branch: _Branch) -> tuple[int, int | None]:
    sizes = [term.sizes() for term in branch]
    longest = [size for _, size in sizes if size is not None]
    return sum(s for s, _ in sizes), sum(longest) if len(longest) == len(sizes) else None


class _PatternReader:
    """Parses a regular expression of ECMA 262."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._nesting = 0

    def read(self) -> list[_Branch]:
        """Return the alternatives; a missing anchor becomes any text."""
        branches = [self._open_branch()]
        while self._take("|"):
            branches.append(self._open_branch())
        if self._at < len(self._text):
            raise UnsupportedPattern("parentheses without a match")
        return branches

    def _open_branch(self) -> _Branch:
        anything = _Term(character_class(outside([])), 1, 1, 0, None)
        before = [] if self._take("^") else [anything]
        branch = [*before, *self._branch()]
        return branch if self._take("$") else [*branch, anything]

    def _branch(self) -> _Branch:
        terms = []
        while self._at < len(self._text) and self._text[self._at] not in "|)$":
            terms.append(self._repeated(self._atom()))
        return terms

    def _repeated(self, term: _Term) -> _Term:
        match = _TIMES.match(self._text, self._at)
        if not match:
            return term
        self._at = match.end()
        self._take("?")  # greedy or not, the same strings match
        sign, low, rest, high = match.groups()
        if sign:
            bounds = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        else:
            bounds = (int(low), (int(high) if high else None) if rest else int(low))
        if max(bounds[0], bounds[1] or 0) > MAX_REPETITIONS:
            raise UnsupportedPattern(f"more than {MAX_REPETITIONS} repetitions")
        return replace(term, low=bounds[0], high=bounds[1])

    def _atom(self) -> _Term:
        char = self._next()
        if char == "(":
            return self._group()
        if char in "^*+?":
            raise UnsupportedPattern(f"{char} in the middle")
        if char == "[":
            return _Term(character_class(self._set()), 1, 1)
        if char == ".":
            return _Term(character_class(outside(LINE_ENDS)), 1, 1)
        ranges = self._escape() if char == "\\" else [(ord(char), ord(char))]
        return _Term(character_class(ranges), 1, 1)

    def _group(self) -> _Term:
        if self._text.startswith("?", self._at):
            match = _NAME.match(self._text, self._at)
            if not match:
                raise UnsupportedPattern(_kind(self._text[self._at : self._at + 3]))
            self._at = match.end()
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise UnsupportedPattern(f"more than {MAX_NESTING} groups nested")
        branches = [self._branch()]
        while self._take("|"):
            branches.append(self._branch())
        if not self._take(")"):
            raise UnsupportedPattern("$ in the middle, or parentheses without a match")
        self._nesting -= 1
        sizes = [_sizes(branch) for branch in branches]
        longest = [size for _, size in sizes if size is not None]
        texts = ["".join(term.text() for term in branch) for branch in branches]
        max_size = max(longest) if len(longest) == len(sizes) else None
        text, shortest = f"({'|'.join(texts)})", min(s for s, _ in sizes)
        return _Term(text, shortest, max_size, parts=_weight(branches))

    def _set(self) -> Ranges:
        negated, ranges = self._take("^"), []
        while not self._take("]"):
            low = self._member()
            if not self._text.startswith("-", self._at) or self._text.startswith("-]", self._at):
                ranges += low
                continue
            self._at += 1
            high = self._member()
            if len(low) != 1 or len(high) != 1 or low[0][0] > high[0][0]:
                raise UnsupportedPattern("an invalid range of characters")
            ranges.append((low[0][0], high[0][0]))
        return outside(ranges) if negated else ranges

    def _member(self) -> Ranges:
        char = self._next()
        if char == "\\" and self._take("b"):
            return [(8, 8)]
        return self._escape() if char == "\\" else [(ord(char), ord(char))]

    def _escape(self) -> Ranges:
        if match := _CODE.match(self._text, self._at):
            self._at = match.end()
            code = int(next(digits for digits in match.groups() if digits), 16)
            return [(code, code)]
        char = self._next()
        if char.lower() in _CLASSES:
            ranges = _CLASSES[char.lower()]
            return outside(ranges) if char.isupper() else ranges
        if char in _REFUSED or (char.isalnum() and char not in _CONTROLS):
            raise UnsupportedPattern(_REFUSED.get(char, f"the escape \\{char}"))
        code = _CONTROLS.get(char, ord(char))
        return [(code, code)]

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise UnsupportedPattern("an unexpected end")
        self._at += 1
        return self._text[self._at - 1]

    def _take(self, text: str) -> bool:
        matches = self._text.startswith(text, self._at)
        self._at += len(text) if matches else 0
        return matches


def _kind(text: str) -> str:
    if text.startswith(("?=", "?!")):
        return "a lookahead"
    return "a lookbehind" if text.startswith(("?<=", "?<!")) else "a flag"
