"""`python -m serve_app keys`: make, list and revoke API keys in their file."""

import argparse
import fcntl
import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from math import inf
from pathlib import Path
from time import time

from serve_app.access.keys.edits import is_blank, with_key, without_name
from serve_app.access.keys.file import KeyEntry, KeyFile, parse, read, read_text
from serve_app.errors import SettingsError

PREFIX = "sk-llm-"
_RANDOM_BYTES = 20  # 160 bits: a hash of so many can't be searched for
_FILE = "SERVE_APP_API_KEYS_FILE"
_REDIS = "SERVE_APP_LIMITS__REDIS_URL"
_PASSWORD = "SERVE_APP_LIMITS__REDIS_PASSWORD_FILE"  # a path


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands; return the exit code."""
    options = _options(arguments)
    try:
        options.run(options, _file(options.file))
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    except OSError as exc:
        where = exc.filename or "the file of keys"
        print(f"{where} can't be written: {exc.strerror}", file=sys.stderr)
        return 2
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serve_app keys", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="make a key, print it once, store its hash")
    new.add_argument("name", help="name of the key, as logs and metrics show it")
    new.add_argument("--group", default="", help="group of the file whose limits it shares")
    listing = commands.add_parser("list", help="show names, groups and ends; never a key")
    revoke = commands.add_parser("revoke", help="remove a name and its keys")
    revoke.add_argument("name", help="name of the key")
    revoke.add_argument(
        "--now",
        action="store_true",
        help="tell running replicas by way of the Redis of the limits, ahead of the file",
    )
    revoke.add_argument(
        "--redis-url", default=os.environ.get(_REDIS), help=f"that Redis (default: {_REDIS})"
    )
    revoke.add_argument(
        "--redis-password-file",
        type=Path,
        default=os.environ.get(_PASSWORD),
        help=f"file with its password (default: {_PASSWORD})",
    )
    for command, run in ((new, _new), (listing, _list), (revoke, _revoke)):
        command.add_argument("--file", type=Path, help=f"the file of keys (default: {_FILE})")
        command.set_defaults(run=run)
    return parser.parse_args(arguments)


def _file(path: Path | None) -> Path:
    named = path or os.environ.get(_FILE)
    if not named:
        raise SettingsError(f"no file of keys is given: add --file FILE, or set {_FILE}")
    return Path(os.path.realpath(named))  # a link is kept


def _new(options: argparse.Namespace, path: Path) -> None:
    key = PREFIX + secrets.token_hex(_RANDOM_BYTES)
    key_hash = sha256(key.encode()).hexdigest()
    with _locked(path):
        text = read_text(path) if path.exists() else ""
        if not is_blank(text) and options.name in parse(text, path).entries:
            raise SettingsError(
                f"{path} already has a key named {options.name}: choose another name"
            )
        _write(path, with_key(text, options.name, key_hash, options.group, path))
    print(key)
    print(f"Stored its hash in {path}; it can't be shown again.", file=sys.stderr)


def _list(options: argparse.Namespace, path: Path) -> None:
    file = read(path)
    rows = [("NAME", "GROUP", "KEYS", "EXPIRES"), *_rows(file)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def _rows(file: KeyFile) -> Iterator[tuple[str, str, str, str]]:
    for name, entry in file.entries.items():
        yield name, entry.group or "-", str(len(entry.digests)), _end(entry)


def _end(entry: KeyEntry) -> str:
    if entry.expires_at == inf:
        return "never"
    return datetime.fromtimestamp(entry.expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _revoke(options: argparse.Namespace, path: Path) -> None:
    with _locked(path):
        text = read_text(path)
        rest = without_name(text, options.name, path)
        if options.now:
            _revoke_now(options, parse(text, path).entries[options.name].digests)
        _write(path, rest)
    print(f"Removed {options.name} from {path}.", file=sys.stderr)


def _revoke_now(options: argparse.Namespace, digests: Iterable[bytes]) -> None:
    from redis.exceptions import RedisError

    from serve_app.access.keys import revoked  # its import takes 50 ms

    if not options.redis_url:
        raise SettingsError(
            f"--now needs the Redis of the limits: add --redis-url, or set {_REDIS}"
        )
    try:
        client = revoked.connect(options.redis_url, options.redis_password_file)
        with closing(client):
            revoked.revoke(client, digests, time())
    except (RedisError, OSError, ValueError) as exc:
        raise SettingsError(
            f"--now can't reach the Redis of the limits, nothing was changed: {exc}"
        ) from exc


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other edits of the file away."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, text: str) -> None:
    """Replace the file in one step; its mode and its owner stay, a new one is its owner's alone."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            if path.exists():
                _take_over(path, file.fileno())
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _take_over(path: Path, descriptor: int) -> None:
    old = path.stat()
    with suppress(PermissionError):  # only root may give a file away
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, old.st_mode & 0o7777)
