"""The pages of the documentation: their text, links, anchors, tables and examples."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
# Of docs/examples, only pages written by hand: MkDocs checks the links of generated reports.
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*TOP, *(p for p in DOCS if "examples" not in p.parts or p.name == "README.md")]
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)
_SEPARATORS = set("|&;()\n")


@dataclass(frozen=True)
class Example:
    """A fenced block. `page` is relative to the repository; `line` is where the block begins."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def examples(*languages: str) -> list[Example]:
    """Return every fenced block in one of `languages`, without indentation."""
    return [example for page in PAGES for example in _blocks(page) if example.language in languages]


def _blocks(page: Path) -> Iterator[Example]:
    for match in _FENCE.finditer(text(page)):
        indent, language, body = match.groups()
        plain = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        line = text(page).count("\n", 0, match.start()) + 1
        yield Example(name(page), line, language, plain)


def prose(page: Path) -> str:
    """Return the text without its fenced blocks."""
    return _FENCE.sub("", text(page))


def inline(page: Path) -> list[str]:
    """Return the texts between backticks in the prose."""
    return _INLINE.findall(prose(page))


def links(page: Path) -> list[str]:
    return _LINK.findall(_INLINE.sub("", prose(page)))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of the headings, as code hosts and MkDocs make them."""
    return frozenset(map(_slug, _HEADING.findall(prose(page))))


def _slug(heading: str) -> str:
    kept = re.sub(r"[^\w\s-]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)).strip().lower()
    return re.sub(r"\s", "-", kept)


def table_cells(page: Path) -> Iterator[str]:
    for line in prose(page).splitlines():
        if line.startswith("|"):
            yield from (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])


def commands(example: Example) -> Iterator[list[str]]:
    """Return the commands of a shell block as words; replace the page's variables."""
    variables = dict(re.findall(r"^(\w+)=(\S+)$", text(ROOT / example.page), re.MULTILINE))
    words: list[str] = []
    for word in [*_words(example.text), "\n"]:
        if set(word) <= _SEPARATORS:
            if words := _without_assignments(words):
                yield words
            words = []
        else:
            words.append(re.sub(r"\$(\w+)", lambda m: variables.get(m[1], m[0]), word))


def _words(script: str) -> list[str]:
    script = _COMMENT.sub("", script.replace("\\\n", " "))
    lexer = shlex.shlex(script, posix=True, punctuation_chars="".join(_SEPARATORS))
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    return list(lexer)


def _without_assignments(words: list[str]) -> list[str]:
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    return words
