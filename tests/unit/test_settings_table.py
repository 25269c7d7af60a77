"""The page of settings tells of every setting as it is now."""

from pathlib import Path

from serve_app.settings_table import fill_in

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_tables_are_current() -> None:
    """`make settings` would change nothing."""
    text = PAGE.read_text()
    assert fill_in(text) == text
