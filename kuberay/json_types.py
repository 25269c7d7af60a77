"""Plain JSON: objects of Kubernetes, and Serve's configuration."""

from typing import Any

Object = dict[str, Any]
Config = dict[str, Any]
