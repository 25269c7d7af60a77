"""`python -m serve_app keys`: make, rotate, list and revoke API keys in their file."""

import argparse
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from math import inf
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from serve_app.access.keys.edits import is_blank, with_key, with_other_key, without_name
from serve_app.access.keys.file import (
    KeyEntry,
    KeyFile,
    name_problem,
    parse_keys,
    read_keys,
    read_text,
)
from serve_app.access.keys.replacement import locked, replace
from serve_app.errors import SettingsError

if TYPE_CHECKING:
    from redis.exceptions import AuthenticationError

PREFIX = "sk-llm-"
_RANDOM_BYTES = 20  # 160 bits: too many to find a key by its hash
_FILE = "SERVE_APP_API_KEYS_FILE"
_REDIS = "SERVE_APP_LIMITS__REDIS_URL"
_GONE = (
    "--now needs the hashes that the file had. If `keys revoke` has removed the name already, "
    "replicas refuse its keys within a second of the file's change, on Kubernetes within two "
    "minutes of the Secret's. To be faster, put its entry back and repeat this command"
)
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
    rotate = commands.add_parser("rotate", help="make one more key for a name; the old stay valid")
    rotate.add_argument("name", help="name of the keys")
    listing = commands.add_parser("list", help="show names, groups and ends; never a key")
    revoke = commands.add_parser("revoke", help="remove a name and its keys")
    revoke.add_argument("name", help="name of the key")
    revoke.add_argument(
        "--now",
        action="store_true",
        help="tell running replicas through the Redis of the limits, ahead of the file",
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
    for command, run in ((new, _new), (rotate, _rotate), (listing, _list), (revoke, _revoke)):
        command.add_argument("--file", type=Path, help=f"the file of keys (default: {_FILE})")
        command.set_defaults(run=run)
    return parser.parse_args(arguments)


def _file(path: Path | None) -> Path:
    named = path or os.environ.get(_FILE)
    if not named:
        raise SettingsError(f"no file of keys is given: add --file FILE, or set {_FILE}")
    return Path(os.path.realpath(named))  # a link is kept


def _new(options: argparse.Namespace, path: Path) -> None:
    if problem := name_problem(options.name):
        raise SettingsError(f"{path} was not changed: {problem}")
    key, key_hash = _random_key()
    with locked(path):
        text = read_text(path) if path.exists() else ""
        if not is_blank(text) and options.name in parse_keys(text, path).entries:
            raise SettingsError(
                f"{path} already has a key named {options.name}: choose another name, "
                f"or make one more key for it with `keys rotate {options.name}`"
            )
        replace(path, with_key(text, options.name, key_hash, options.group, path))
    _show(key, path)


def _rotate(options: argparse.Namespace, path: Path) -> None:
    key, key_hash = _random_key()
    with locked(path):
        text = read_text(path)
        entry = parse_keys(text, path).entries.get(options.name)
        if entry and entry.expires_at <= time():
            raise SettingsError(
                f"{path} was not changed: {options.name} has expired ({_end(entry)}), and so would "
                "its new key: change its `expires` first"
            )
        replace(path, with_other_key(text, options.name, key_hash, path))
    _show(key, path)


def _random_key() -> tuple[str, str]:
    """Return a new key and its hash."""
    key = PREFIX + secrets.token_hex(_RANDOM_BYTES)
    return key, sha256(key.encode()).hexdigest()


def _show(key: str, path: Path) -> None:
    print(key)
    print(f"Stored its hash in {path}; it can't be shown again.", file=sys.stderr)


def _list(options: argparse.Namespace, path: Path) -> None:
    file = read_keys(path)
    rows = [("NAME", "GROUP", "KEYS", "EXPIRES"), *_rows(file)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def _rows(file: KeyFile) -> Iterator[tuple[str, str, str, str]]:
    for name, entry in file.entries.items():
        mark = " (expired)" if entry.expires_at <= time() else ""
        yield name, entry.group or "-", str(len(entry.digests)), _end(entry) + mark


def _end(entry: KeyEntry) -> str:
    if entry.expires_at == inf:
        return "never"
    return datetime.fromtimestamp(entry.expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _revoke(options: argparse.Namespace, path: Path) -> None:
    with locked(path):
        text = read_text(path)
        if options.now and options.name not in parse_keys(text, path).entries:
            raise SettingsError(f"{path} has no key named {options.name}: {_GONE}")
        rest = without_name(text, options.name, path)
        if options.now:
            _revoke_now(options, parse_keys(text, path).entries[options.name].digests)
        replace(path, rest)
    print(f"Removed {options.name} from {path}.", file=sys.stderr)


def _revoke_now(options: argparse.Namespace, digests: Iterable[bytes]) -> None:
    from redis.exceptions import AuthenticationError, RedisError

    from serve_app.access.keys import revoked  # its import takes 50 ms

    if not options.redis_url:
        raise SettingsError(
            f"--now needs the Redis of the limits: add --redis-url, or set {_REDIS}"
        )
    try:
        client = revoked.revoked_client(options.redis_url, options.redis_password_file)
        with closing(client):
            revoked.revoke(client, digests, time())
    except AuthenticationError as exc:
        raise SettingsError(
            f"--now can't use the Redis of the limits, nothing was changed: {_refusal(exc)}"
        ) from exc
    except (RedisError, OSError, ValueError) as exc:
        raise SettingsError(
            f"--now can't reach the Redis of the limits, nothing was changed: {exc}"
        ) from exc


def _refusal(exc: "AuthenticationError") -> str:
    if exc.status_code == "NOAUTH":
        return f"this Redis needs a password: add --redis-password-file, or set {_PASSWORD}"
    return str(exc)
