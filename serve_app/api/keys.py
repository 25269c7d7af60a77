"""API keys by name, given once or read from a file, which may change while we serve."""

import hmac
import logging
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from time import monotonic

from serve_app.errors import SettingsError

logger = logging.getLogger("ray.serve")

CHECK_EVERY_S = 1.0


def read_keys(path: Path) -> dict[str, str]:
    """Keys by name from a file of `name: key` lines; empty lines and `#` comments are skipped.

    Raises SettingsError naming the file (never a key) when it can't be read or holds no key.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except OSError as exc:
        raise SettingsError(f"api_keys_file: {path} can't be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"api_keys_file: {path} is not UTF-8 text") from exc
    pairs = [line.partition(":") for line in lines if line and not line.startswith("#")]
    keys = {name.strip(): key.strip() for name, _, key in pairs}
    if not keys or not all(name and key for name, key in keys.items()):
        raise SettingsError(f"api_keys_file: {path} must hold lines of `name: key`")
    return keys


class Keys:
    """Those that never change, for callers to be compared with."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        # Digests: equal lengths for the comparison, and no key lies about in memory dumps of ours.
        self._digests = _digests(keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def names(self, presented: Iterable[bytes]) -> list[str]:
        """The names of those keys that are among `presented`."""
        # No early end: every key is compared, whichever fits.
        return [
            name
            for digest in map(_digest, presented)
            for name, key in self._digests.items()
            if hmac.compare_digest(key, digest)
        ]


class FileKeys(Keys):
    """With those of a file, read again within a second of its change.

    A file that is gone or broken leaves the keys as they were: nothing opens the door by accident.
    Raises SettingsError at once when it can't be read, unless it is `optional` and not there.
    """

    def __init__(
        self,
        fixed: Mapping[str, str],
        path: Path,
        *,
        optional: bool,
        check_every_s: float = CHECK_EVERY_S,
    ) -> None:
        super().__init__(fixed)
        self._fixed = fixed
        self._check_every_s = check_every_s
        self._path = path
        self._version = _version(path)
        self._checked = monotonic()
        if self._version or not optional:
            self._read()

    def __bool__(self) -> bool:
        self._refresh()
        return super().__bool__()

    def _read(self) -> None:
        self._digests = _digests({**self._fixed, **read_keys(self._path)})

    def _refresh(self) -> None:
        if monotonic() - self._checked < self._check_every_s:
            return
        self._checked = monotonic()
        version = _version(self._path)
        if version in (None, self._version):
            return
        self._version = version
        try:
            self._read()
        except SettingsError as exc:
            logger.error("the keys stay as they were: %s", exc)
        else:
            logger.info("read %s again", self._path)


def _version(path: Path) -> tuple[int, int] | None:
    """What differs when the file was written, or replaced as the kubelet does; None: not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _digests(keys: Mapping[str, str]) -> dict[str, bytes]:
    return {name: _digest(key.encode()) for name, key in keys.items()}


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
