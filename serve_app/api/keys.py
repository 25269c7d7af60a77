"""API keys by name, fixed or read from a file that may change while the service runs."""

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
    """Read keys by name from a file of `name: key` lines, without empty lines and `#` comments.

    Raises SettingsError, which names the file and never a key, when it can't be read or has no key.
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
        raise SettingsError(
            f"api_keys_file: {path} must have a line `name: key` for each key, and nothing else"
        )
    return keys


class Keys:
    """Compares presented keys with keys that never change."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        # Digests have equal lengths to compare, and leave no key in a memory dump.
        self._digests = _digests(keys)

    def present(self) -> bool:
        """Tell whether there is any key, so that callers need one."""
        return bool(self._digests)

    def names(self, presented: Iterable[bytes]) -> list[str]:
        """Return the names of the keys that are among `presented`."""
        # Every key is compared, whichever matches, so that the time tells nothing.
        return [
            name
            for digest in map(_digest, presented)
            for name, key in self._digests.items()
            if hmac.compare_digest(key, digest)
        ]


class FileKeys(Keys):
    """Adds the keys of a file, which is read again within a second of its change.

    A file that disappears or breaks leaves the keys unchanged: no accident opens the service.
    Raises SettingsError at first when the file can't be read, unless it is `optional` and absent.
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

    def present(self) -> bool:
        """Tell whether there is any key; looks at the file once a second at most."""
        self._refresh()
        return super().present()

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
            logger.error("failed to read the keys again, the old ones stay: %s", exc)
        else:
            logger.info("read the keys in %s again", self._path)


def _version(path: Path) -> tuple[int, int] | None:
    """Return a mark that changes with every write or replacement of the file, None if absent."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _digests(keys: Mapping[str, str]) -> dict[str, bytes]:
    return {name: _digest(key.encode()) for name, key in keys.items()}


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
