"""The admin key with which a command of this program asks a running service."""

from collections.abc import Mapping

from serve_app.errors import SettingsError

KEY_VARIABLE = "LLM_ADMIN_KEY"


def admin_key(environ: Mapping[str, str]) -> str:
    """Return the key in KEY_VARIABLE, "" where there is none.

    Raises SettingsError, which does not show it, for a key that no header can carry.
    """
    key = environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise SettingsError(
            f"{KEY_VARIABLE} is not a key: no header can carry its characters; set it to the key "
            "alone"
        )
    return key
