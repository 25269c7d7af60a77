"""The keys in force: fixed ones, and those of a file that may change while the service runs."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from serve_app.access.keys.callers import Callers, callers
from serve_app.access.keys.file import KeyFile, read
from serve_app.errors import SettingsError

logger = logging.getLogger("ray.serve")

CHECK_EVERY_S = 0.25

Version = tuple[int, ...]


class KeyWatch:
    """Has the table of callers, and replaces it when the file has changed.

    A file that disappears or breaks leaves the table unchanged: no accident opens the service. One
    that was never valid admits no caller.
    `show_valid` is told whether the file could be read, at first and at each change. `accept` may
    raise SettingsError for a table that can't work here, and the file is invalid then.
    Raises SettingsError at first when the file can't be read, unless it is `optional` and absent.
    """

    def __init__(
        self,
        fixed: Mapping[str, str],
        path: Path | None = None,
        *,
        optional: bool = False,
        show_valid: Callable[[bool], None] = lambda valid: None,
        accept: Callable[[Callers], None] = lambda table: None,
    ) -> None:
        self._fixed = fixed
        self._accept = accept
        self.path = path
        self._show_valid = show_valid
        self._version = _version(path) if path else None
        self.callers = callers(fixed, KeyFile({}, is_plain=True))
        # Stays true, even if the file loses its last key.
        self.needs_key = bool(fixed)
        if path and (self._version or not optional):
            self._read(path)
            show_valid(True)

    def check(self) -> None:
        """Read the file again if it has changed. May wait for the disk."""
        if self.path is None or (version := _version(self.path)) == self._version:
            return
        self._version = version
        try:
            self._read(self.path)
        except SettingsError as exc:
            logger.error("failed to reload the keys, keeping the old ones: %s", exc)
            self.needs_key = True  # the file is to be an end of serving everybody
            self._show_valid(False)
        else:
            logger.info("reloaded the keys in %s", self.path)
            self._show_valid(True)

    def _read(self, path: Path) -> None:
        table = callers(self._fixed, read(path))
        self._accept(table)
        self.callers = table
        self.needs_key = True


def _version(path: Path) -> Version | None:
    """Return a mark that changes with every write or replacement of the file, None if absent."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
