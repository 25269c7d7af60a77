"""One fast, elastic endpoint in front of a fleet of Ollama servers, on Ray Serve.

`serve run serve_app:app` starts it; `app` takes `serve_app.settings.Settings`.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    # Engines' child processes import this package too, so that Ray is imported for the app only.
    if name == "app":
        from serve_app.ray_serve.application import app

        return app
    raise AttributeError(f"module 'serve_app' has no attribute {name!r}")
