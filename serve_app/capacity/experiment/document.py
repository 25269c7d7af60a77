"""A document of paragraphs, tables and pictures, as Markdown and as one HTML file."""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.capacity.experiment.plots import Picture

_CSS = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .9rem .3rem 0; text-align: left;
  vertical-align: top }
figure { margin: 1.5rem 0 } figure svg { width: 100%; height: auto }
figcaption { color: #555 }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto } code { background: #f5f5f5 }
.warning { border-left: 4px solid #d55e00; padding-left: .8rem }
"""


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text with `**bold**` and `` `code` `` as in Markdown."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Code:
    text: str
    language: str = "sh"


@dataclass(frozen=True, slots=True)
class PictureBlock:
    picture: Picture
    caption: str


Block = Heading | Paragraph | Table | Code | PictureBlock


def markdown(blocks: Sequence[Block]) -> str:
    """Render as Markdown, with links to pictures `NAME.png`."""
    return "\n\n".join(map(_markdown, blocks)) + "\n"


def html_page(title: str, blocks: Sequence[Block]) -> str:
    """Render as one self-contained HTML page, with pictures inline."""
    body = "\n".join(map(_html, blocks))
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return "#" * level + " " + text
        case Paragraph(text, warning):
            return f"> {text}" if warning else text
        case Table(head, rows):
            lines = [head, ["---"] * len(head), *rows]
            return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        case Code(text, language):
            return f"```{language}\n{text}\n```"
        case PictureBlock(picture, caption):
            return f"![{picture.alt}]({picture.name}.png)\n\n{caption}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Paragraph(text, warning):
            return f"<p{' class=warning' if warning else ''}>{_inline(text)}</p>"
        case Table(head, rows):
            top = "".join(f"<th>{_inline(cell)}" for cell in head)
            lines = ("".join(f"<td>{_inline(cell)}" for cell in row) for row in rows)
            return f"<table><tr>{top}" + "".join(f"\n<tr>{line}" for line in lines) + "</table>"
        case Code(text):
            return f"<pre>{html.escape(text)}</pre>"
        case PictureBlock(picture, caption):
            alt, drawing = html.escape(picture.alt), _inner(picture.svg.decode())
            return (
                f'<figure role="img" aria-label="{alt}">{drawing}'
                f"<figcaption>{_inline(caption)}</figcaption></figure>"
            )


def _inline(text: str) -> str:
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def _inner(svg: str) -> str:
    """Strip the declarations that only a separate file needs."""
    return svg[svg.index("<svg") :]


def format_seconds(value: float | None, digits: int = 1) -> str:
    """Format a duration; a dash for None or nan."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f} s"


def percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"
