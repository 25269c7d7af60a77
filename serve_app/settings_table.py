"""The tables of docs/settings.md, made from the settings class.

`python -m serve_app.settings_table docs/settings.md` writes them between the page's two markers.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from serve_app.environment import PREFIX
from serve_app.setting_names import nested_model
from serve_app.settings import Settings

BEGIN = "<!-- settings: made by `make settings` -->"
END = "<!-- /settings -->"
_HEAD = "| Setting | Environment | Default | Meaning |\n| --- | --- | --- | --- |\n"


def tables() -> str:
    """Return Markdown: a heading and a table for the service, then for each nested model."""
    return "".join(_sections(Settings, ()))


def _sections(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[str]:
    fields = model.model_fields.items()
    nested = {name: nested_model(field) for name, field in fields}
    rows = [_row((*path, name), field) for name, field in fields if not nested[name]]
    title = f"`{'.'.join(path)}`" if path else "The service"
    yield f"\n## {title}\n\n{_about(model, path)}{_HEAD}" + "".join(rows)
    for name, inner in nested.items():
        if inner:
            yield from _sections(inner, (*path, name))


def _about(model: type[BaseModel], path: tuple[str, ...]) -> str:
    return f"{(model.__doc__ or '').strip()}\n\n" if path else ""


def _row(path: tuple[str, ...], field: FieldInfo) -> str:
    meaning = (field.description or "").replace("|", "\\|")
    variable = PREFIX + "__".join(path).upper()
    return f"| `{'.'.join(path)}` | `{variable}` | {_default(field)} | {meaning} |\n"


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if field.is_required() or value is None or value in ((), {}):
        return ""
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def fill_in(text: str) -> str:
    """Return `text` with the tables between its markers. Raises ValueError without markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(fill_in(page.read_text()))
