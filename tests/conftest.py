"""Ctrl-C ends every test, and no proxy of the environment stands before this machine."""

import os
import signal
from pathlib import Path

import pytest

# A shell that runs tests in its background ignores Ctrl-C, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

for name in [n for n in os.environ if n.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
    del os.environ[name]

# The longest tests, which mostly wait. Begun first, they do not end last.
LONG = tuple(Path(__file__).parent / folder for folder in ("launcher", "experiment"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(item.path.is_relative_to(folder) for folder in LONG))
