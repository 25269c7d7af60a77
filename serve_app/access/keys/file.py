"""The file of API keys, in either of its forms.

    alice: sk-a                    a line `name: key` for each key, read literally, or

    alice: sk-a                    YAML, as soon as one value is a mapping
    bob: {sha256: 9f86…, group: team}
    groups: {team: {weight: 2}}
    default: {max_parallel: 4}

`strict_yaml` reads the second form, and `policies` has the fields of a policy.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from math import inf
from pathlib import Path

from pydantic import ValidationError

from serve_app.access.keys import strict_yaml
from serve_app.access.keys.entry import KeyFields, key_problem
from serve_app.access.policies import NO_POLICY, Policy
from serve_app.access.regular_file import read_regular
from serve_app.errors import SettingsError

GROUPS, DEFAULT = RESERVED = "groups", "default"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CHARACTERS = "1 to 64 of the characters A-Z a-z 0-9 . _ -"
_FIELD = re.compile(r"[a-z_]{1,32}|\d{1,4}|sha256")  # anything else may be a misplaced key
_SECRETS = {"key", "keys", "sha256"}
_MAX_SHOWN = 20
# A mapping in braces, on the line of its name: it is never a key.
_MAPPING = re.compile(r"""(?:^|\s)\{\s*($|\}|["']?[\w.-]+["']?\s*:(\s|$))""")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """The file's entry about one name. `expires_at`: seconds since 1970."""

    digests: tuple[bytes, ...]
    policy: Policy = NO_POLICY
    group: str = ""
    expires_at: float = inf


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The content of a file. `is_plain`: in the form of lines `name: key`."""

    entries: Mapping[str, KeyEntry]
    groups: Mapping[str, Policy] = field(default_factory=dict)
    default: Policy = NO_POLICY
    is_plain: bool = False


def key_digest(key: bytes) -> bytes:
    return sha256(key).digest()


def read_keys(path: Path) -> KeyFile:
    """Read the file at `path`. Raises SettingsError, which names the file and never a key."""
    return parse_keys(read_text(path), path)


def parse_keys(text: str, path: Path) -> KeyFile:
    """Return the keys in `text`. Raises SettingsError, which names `path` and never a key."""
    if plain := plain_keys(text):
        entries = {name: KeyEntry((key_digest(key.encode()),)) for name, key in plain.items()}
        return KeyFile(entries, is_plain=True)
    try:
        values = {name: entry.value for name, entry in strict_yaml.load(text).items()}
        if not values.keys() & set(RESERVED) and not _has_mapping(values):
            raise ValueError(
                "it must have a line `name: key` for each key, and nothing else; see docs/keys.md "
                "for the YAML form"
            )
        return _from_yaml(values)
    except ValueError as exc:
        raise SettingsError(f"api_keys_file: {path} can't be used: {exc}") from None


def _has_mapping(values: Mapping[str, strict_yaml.Value]) -> bool:
    return any(isinstance(value, dict) for value in values.values())


def plain_keys(text: str) -> dict[str, str]:
    """Return the keys by name of a file of `name: key` lines; none for the other form.

    Empty lines and those that begin with `#` are skipped.
    """
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition(":") for line in lines if line and not line.startswith("#")]
    keys = {name.strip(): key.strip() for name, _, key in pairs}
    is_plain = all(name and key and not _MAPPING.search(key) for name, key in keys.items())
    return keys if is_plain else {}


def read_text(path: Path) -> str:
    """Return the text of a regular file of at most 1 MiB; never wait for a pipe.

    Raises SettingsError, which names the file.
    """
    try:
        return read_regular(path).decode()
    except OSError as exc:
        raise SettingsError(f"api_keys_file: {path} can't be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"api_keys_file: {path} is not UTF-8 text") from exc


def _from_yaml(values: dict[str, strict_yaml.Value]) -> KeyFile:
    groups = values.pop(GROUPS, "") or {}
    if not isinstance(groups, dict):
        raise ValueError(f"{GROUPS} must be a mapping of names to policies")
    default = values.pop(DEFAULT, "") or {}
    file = KeyFile(
        {_name(name): _entry(name, value) for name, value in values.items()},
        {_name(name, GROUPS): _policy(f"{GROUPS}.{name}", value) for name, value in groups.items()},
        _policy(DEFAULT, default),
    )
    _check(file)
    return file


def name_problem(name: str) -> str:
    """Return why no key can have this name, or "". Anything but a name may be a key: not shown."""
    if name in RESERVED:
        return f"{name} is reserved, the file has its own entry {name}: choose another name"
    if _NAME.fullmatch(name):
        return ""
    return f"the name of a key is made of {_CHARACTERS}: choose such a name"


def _name(name: str, where: str = "the file") -> str:
    if begins_like_key(name):
        raise ValueError(
            f"{where} has a name that begins with sk-, as keys do: the name stands before the "
            "colon, the key after it"
        )
    if _NAME.fullmatch(name):
        return name
    raise ValueError(
        f"{where} has a name that is not made of {_CHARACTERS} "
        "(the name stands before the colon, the key after it)"
    )


def _entry(name: str, value: strict_yaml.Value) -> KeyEntry:
    if isinstance(value, str):
        if problem := key_problem(value):
            raise ValueError(f"{name}: the key {problem}")
        return KeyEntry((key_digest(value.encode()),))
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a key or a mapping")
    try:
        fields = KeyFields.model_validate(value)
    except ValidationError as exc:
        raise _refusal(name, exc) from None
    return KeyEntry(fields.digests, fields.policy, fields.group, fields.expires_at)


def _policy(path: str, value: strict_yaml.Value) -> Policy:
    value = value or {}
    if not isinstance(value, dict):
        raise ValueError(f"{path} must be a mapping of fields, such as {{weight: 2}}")
    try:
        return Policy.model_validate(value)
    except ValidationError as exc:
        raise _refusal(path, exc) from None


def _refusal(path: str, exc: ValidationError) -> ValueError:
    """Return the first error as a sentence with path and value, but never a key."""
    error = exc.errors(include_url=False)[0]
    names = [str(part) for part in error["loc"]]
    where = ".".join([path, *(name if _FIELD.fullmatch(name) else "…" for name in names)])
    if error["type"] == "extra_forbidden":
        return ValueError(f"{where} is unknown here: see docs/keys.md for the fields")
    message = error["msg"].removeprefix("Value error, ").partition(", unable")[0]
    sentence = f"{where}: {message.replace('Input should', 'the value must')}"
    given = error["input"]
    if isinstance(given, str) and not _may_be_key(given) and not _SECRETS & set(names):
        sentence += f", not {given!r}"
    return ValueError(sentence)


def _may_be_key(text: str) -> bool:
    """Tell whether a value in a field of another kind may be a key in the wrong place."""
    return len(text) > _MAX_SHOWN or begins_like_key(text)


def begins_like_key(text: str) -> bool:
    """Tell whether a name may be a key, whose place it has taken."""
    return text.startswith("sk-")


def _check(file: KeyFile) -> None:
    """Raise ValueError for a repeated key or an unknown group."""
    if names := shared_key(file.entries):
        first, second = names
        both = f"{first} and {second}" if first != second else f"{first}, twice"
        raise ValueError(f"one key belongs to {both}: every key must be different")
    for name, entry in file.entries.items():
        if entry.group and entry.group not in file.groups:
            shown = "its value" if _may_be_key(entry.group) else repr(entry.group)
            raise ValueError(
                f"{name}.group: {shown} is not in {GROUPS}: add it there, or remove it here"
            )


def shared_key(entries: Mapping[str, KeyEntry]) -> tuple[str, str] | None:
    """Return the two names, perhaps equal, of the first repeated key."""
    owners: dict[bytes, str] = {}
    for name, entry in entries.items():
        for key_digest in entry.digests:
            if key_digest in owners:
                return owners[key_digest], name
            owners[key_digest] = name
    return None
