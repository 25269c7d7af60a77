"""The keys in force: fixed ones, and those of a file that may change while the service runs."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from time import sleep

from serve_app.access.keys.callers import Callers, callers
from serve_app.access.keys.file import KeyFile, begins_like_key, read_keys
from serve_app.errors import SettingsError

logger = logging.getLogger("ray.serve")

CHECK_EVERY_S = 0.25
SETTLED_S = 0.1  # a file that has not changed for this time is complete

Version = tuple[int, ...]


class KeyWatch:
    """Holds the table of callers and replaces it when the file changes.

    A file that disappears or breaks leaves the table unchanged: no accident opens the service. A
    file that was never valid admits no caller. `show_valid` is called with whether the file could
    be read, at first and after each change. `accept` raises SettingsError for a table that can't
    work here, which makes the file invalid. `pause` waits for a number of seconds. Raises
    SettingsError at first when the file can't be read, unless it is `optional` and absent.
    """

    def __init__(
        self,
        fixed: Mapping[str, str],
        path: Path | None = None,
        *,
        optional: bool = False,
        show_valid: Callable[[bool], None] = lambda valid: None,
        accept: Callable[[Callers], None] = lambda table: None,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        self._fixed = fixed
        self._accept = accept
        self._pause = pause
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
        """Read the file again if it has changed and nobody is writing it.

        A half-written file may have a part of a key, which must not become valid. May block.
        """
        if self.path is None or (version := _version(self.path)) == self._version:
            return
        self._pause(SETTLED_S)
        if _version(self.path) != version:
            return  # the next call tries again
        self._version = version
        try:
            self._read(self.path)
        except SettingsError as exc:
            logger.error("failed to reload the keys, keeping the old ones: %s", exc)
            self.needs_key = True  # such a file is meant to stop serving everybody
            self._show_valid(False)
        else:
            logger.info("reloaded the keys in %s", self.path)
            self._show_valid(True)

    def _read(self, path: Path) -> None:
        file = read_keys(path)
        table = callers(self._fixed, file)
        self._accept(table)
        if any(map(begins_like_key, file.entries)):
            logger.warning(
                "found a name that begins with sk-, as keys do, in %s; logs show names: a name "
                "stands before the colon, its key after it",
                path,
            )
        self.callers = table
        self.needs_key = True


def _version(path: Path) -> Version | None:
    """Return a value that changes with every write or replacement of the file; None: absent."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
