"""Settings from the environment."""

import traceback

import pytest

from serve_app.errors import SettingsError
from serve_app.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVE_APP_POOLS", "x"),
        ("SERVE_APP_ENGINE__ENV", "A=1"),
        ("SERVE_APP_ENGINE__SIMULATED__MODEL_MIB", "large"),
    ],
)
def test_a_value_that_is_not_json_is_refused_by_the_name_of_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However deep its setting is."""
    monkeypatch.setenv("SERVE_APP_ENGINE__SLOTS", "2")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"^{name} is not valid JSON \(.*\): write lists"):
        Settings()


def test_a_value_that_is_not_json_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a key, and errors are logged with their tracebacks."""
    monkeypatch.setenv("SERVE_APP_API_KEYS", '{"alice": "sk-secret"')
    with pytest.raises(SettingsError) as raised:
        Settings()
    assert "secret" not in "".join(traceback.format_exception(raised.value))
