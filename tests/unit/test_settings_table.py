"""The README tells of every setting as it is now."""

from pathlib import Path

from serve_app.settings_table import fill_in

README = Path(__file__).parents[2] / "README.md"


def test_the_table_is_current() -> None:
    """`make settings` would change nothing."""
    text = README.read_text()
    assert fill_in(text) == text
