"""The page of the API names every field without effect as it is now."""

import runpy

from tests.support.pages import ROOT

PAGE = ROOT / "docs" / "api.md"


def test_the_table_of_fields_is_current() -> None:
    """`make fields` would change nothing."""
    fill_in = runpy.run_path(str(ROOT / "docs" / "site" / "fields_table.py"))["fill_in"]
    text = PAGE.read_text(encoding="utf-8")
    assert fill_in(text) == text
