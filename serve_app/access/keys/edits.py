"""Edits of the file of keys as text, which keep every comment and every other line."""

from collections.abc import Callable, Iterable
from pathlib import Path

from serve_app.access.keys import strict_yaml
from serve_app.access.keys.callers import Callers, callers
from serve_app.access.keys.file import GROUPS, RESERVED, parse_keys, plain_keys
from serve_app.access.keys.insertion import key_and_hash, with_hash
from serve_app.errors import SettingsError

# Keeps a file in the YAML form when no mapping is left, and valid when no key is left.
_NO_GROUPS = f"{GROUPS}:\n"


def with_key(text: str, name: str, key_hash: str, group: str, path: Path) -> str:
    """Return `text` with a new name for the key of this SHA-256, in hexadecimal digits.

    Raises SettingsError if that is impossible or would change anything else.
    """
    entry = f"{name}:\n  sha256: {key_hash}\n" + (f"  group: {group}\n" if group else "")
    before = Callers() if is_blank(text) else _callers(text, path)
    added = bytes.fromhex(key_hash)
    edited = _ended(text) + entry

    def fits(after: Callers) -> bool:
        others = {k: entry for k, entry in after.by_digest.items() if k != added}
        return others == before.by_digest and after.by_digest[added][0].name == name

    return _first_fitting([edited], fits, path)


def with_other_key(text: str, name: str, key_hash: str, path: Path) -> str:
    """Return `text` with one more key for `name`, of this SHA-256 in hexadecimal digits.

    Raises SettingsError if there is no such name, or if that would change anything else.
    """
    before = _callers(text, path)
    own = [entry for entry in before.by_digest.values() if entry[0].name == name]
    if not own or name in RESERVED:
        raise _no_such_name(name, path)
    wanted = {**before.by_digest, bytes.fromhex(key_hash): own[0]}
    edited = _as_mapping(text, name, key_hash) or with_hash(text, name, key_hash)
    return _first_fitting([edited], lambda after: after.by_digest == wanted, path)


def _as_mapping(text: str, name: str, key_hash: str) -> str:
    """Return a file of lines whose last line of `name` has become a mapping; "" for YAML."""
    if not (plain := plain_keys(text)):
        return ""
    numbers = _lines_of(text, name)
    lines = [line for i, line in enumerate(_lines(text)) if i not in numbers - {max(numbers)}]
    at = max(numbers) - len(numbers) + 1
    lines[at] = f"{name}: {key_and_hash(plain[name], key_hash)}\n"
    return "".join(lines)


def without_name(text: str, name: str, path: Path) -> str:
    """Return `text` without `name` and its keys. Raises SettingsError if there is no such name."""
    before = _callers(text, path)
    kept = {k: entry for k, entry in before.by_digest.items() if entry[0].name != name}
    lines = _lines_of(text, name)
    if not lines:
        raise _no_such_name(name, path)
    edited = "".join(line for i, line in enumerate(_lines(text)) if i not in lines)
    return _first_fitting(
        [edited, _ended(edited) + _NO_GROUPS],
        lambda after: after.by_digest == kept,
        path,
    )


def _no_such_name(name: str, path: Path) -> SettingsError:
    return SettingsError(f"{path} has no key named {name}: see `keys list`")


def is_blank(text: str) -> bool:
    """Tell whether `text` holds comments only."""
    return all(not line.strip() or line.strip().startswith("#") for line in _lines(text))


def _first_fitting(texts: Iterable[str], fits: Callable[[Callers], bool], path: Path) -> str:
    """Return the first text whose content is as intended."""
    problem = "its other lines mean something else as YAML: put quotes around their keys"
    for text in texts:
        try:
            if fits(_callers(text, path)):
                return text
        except SettingsError as exc:
            problem = str(exc)
    raise SettingsError(f"{path} was not changed: {problem}")


def _callers(text: str, path: Path) -> Callers:
    return callers({}, parse_keys(text, path))


def _lines_of(text: str, name: str) -> set[int]:
    """Return the line numbers of `name`, from 0."""
    if plain_keys(text):
        lines = (line.strip() for line in _lines(text))
        return {
            i
            for i, line in enumerate(lines)
            if not line.startswith("#") and line.partition(":")[0].strip() == name
        }
    entry = strict_yaml.load(text).get(name)
    return set(range(entry.first, entry.last + 1)) if entry and name not in RESERVED else set()


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"
