"""Checks files named in settings, on the node where the engine will run."""

from pathlib import Path

from serve_app.engine_settings import EngineSettings
from serve_app.errors import SettingsError

_GGUF = b"GGUF"


def check_files(engine: EngineSettings) -> None:
    """Raise SettingsError for a file that the engine can't use."""
    if engine.model_path and engine.kind == "llamacpp":
        _check_model(engine.model_path)
    if engine.models_dir and engine.models_dir.exists() and not engine.models_dir.is_dir():
        raise SettingsError(
            f"engine.models_dir: {engine.models_dir} is not a directory: "
            "set the folder of the models"
        )


def _check_model(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF))
    except OSError as exc:
        raise SettingsError(
            f"engine.model_path: {path} can't be read on this node: {exc.strerror}; put the GGUF "
            "file on every node of the pool"
        ) from exc
    if magic != _GGUF:
        raise SettingsError(
            f"engine.model_path: {path} is not a GGUF file: it begins with {magic!r}"
        )
