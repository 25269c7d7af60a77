"""The table of settings in the README, made from the settings class.

`python -m serve_app.settings_table README.md` writes it between its two markers.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from serve_app.settings import PREFIX, Settings

BEGIN = "<!-- settings: made by `make settings` -->"
END = "<!-- /settings -->"


def table() -> str:
    """Markdown: one row a setting, its environment variable, its default, what it means."""
    rows = "\n".join(f"| {' | '.join(row)} |" for row in _rows(Settings, PREFIX))
    return f"| Environment | Default | Meaning |\n| --- | --- | --- |\n{rows}\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from _rows(nested, f"{variable}__")
        else:
            yield f"`{variable}`", _default(field), (field.description or "").replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is None or value in ((), {}):
        return ""
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def fill_in(text: str) -> str:
    """`text` with the table between its markers. Raises ValueError where they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END} in the text")
    return f"{before}{BEGIN}\n{table()}{END}{after}"


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    readme.write_text(fill_in(readme.read_text()))
