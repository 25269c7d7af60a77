"""The table of request fields without effect in docs/api.md, made from `serve_app.api.fields`.

`python docs/site/fields_table.py docs/api.md` writes it between the page's two markers.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from serve_app.api.fields import IGNORED, WITHHELD

BEGIN = "<!-- fields: made by `make fields` -->"
END = "<!-- /fields -->"
_HEAD = "| Fields | Routes | Why |\n| --- | --- | --- |\n"


def table() -> str:
    """Return Markdown: a row for each reason and set of routes."""
    routes = defaultdict(list)
    for route, fields in IGNORED.items():
        for field, reason in fields.items():
            routes[field, reason].append(route)
    rows = defaultdict(list)
    for (field, reason), found in routes.items():
        rows[reason, tuple(found)].append(field)
    for field, reason in WITHHELD.items():
        rows[reason, ()].append(field)
    return _HEAD + "".join(_row(fields, *key) for key, fields in rows.items())


def _row(fields: list[str], reason: str, routes: tuple[str, ...]) -> str:
    return f"| {_codes(fields)} | {_codes(routes) or 'all'} | {reason[0].upper()}{reason[1:]} |\n"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def fill_in(text: str) -> str:
    """Return `text` with the table between its markers. Raises ValueError without markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END} in the text")
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(fill_in(page.read_text(encoding="utf-8")), encoding="utf-8")
