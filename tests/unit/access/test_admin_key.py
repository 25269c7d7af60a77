"""The admin key with which commands ask a running service."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from serve_app.access.admin_key import admin_key
from serve_app.access.usage.command import main as usage
from serve_app.fleet.top import main as top

Command = Callable[[Sequence[str], Mapping[str, str]], int]


def test_a_line_end_around_the_key_means_nothing() -> None:
    """As files of secrets have one."""
    assert admin_key({"LLM_ADMIN_KEY": "sk-root\n"}) == "sk-root"
    assert admin_key({}) == ""


@pytest.mark.parametrize("command", [usage, top])
@pytest.mark.parametrize("key", ["sk-root\nsk-ada", "sk-r\u00f6\u00f6t"])
def test_what_no_header_can_carry_is_refused_and_not_shown(
    capsys: pytest.CaptureFixture[str], command: Command, key: str
) -> None:
    """By every command, in a sentence that names the variable."""
    assert command(["--url", "http://127.0.0.1:1"], {"LLM_ADMIN_KEY": key}) == 1
    shown = capsys.readouterr()
    assert "LLM_ADMIN_KEY is not a key" in shown.err
    assert "sk-r" not in shown.err + shown.out
