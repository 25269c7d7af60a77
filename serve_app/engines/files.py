"""Files that settings name, looked at on the node where the engine will run."""

from pathlib import Path

from serve_app.errors import SettingsError
from serve_app.settings import EngineSettings

_GGUF = b"GGUF"


def check_files(engine: EngineSettings) -> None:
    """Raises SettingsError for a file that the engine could not use: no start would help."""
    if engine.model_path and engine.kind == "llamacpp":
        _check_model(engine.model_path)
    if engine.models_dir and engine.models_dir.exists() and not engine.models_dir.is_dir():
        raise SettingsError(f"engine.models_dir: {engine.models_dir} is no directory")


def _check_model(path: Path) -> None:
    try:
        with path.open("rb") as file:
            begins = file.read(len(_GGUF))
    except OSError as exc:
        raise SettingsError(
            f"engine.model_path: {path} can't be read on this node: {exc.strerror}; it must be a "
            "GGUF file that is there on every node of the pool"
        ) from exc
    if begins != _GGUF:
        raise SettingsError(f"engine.model_path: {path} is no GGUF file: it begins with {begins!r}")
