"""The table of callers by key, with their resolved policies."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from serve_app.access.caller import Caller
from serve_app.access.keys.file import KeyEntry, KeyFile, key_digest, shared_key
from serve_app.access.policies import NO_POLICY, Limits, Policy
from serve_app.engines.base import Priority
from serve_app.errors import SettingsError

T = TypeVar("T")
JWT_PREFIX = "jwt:"


@dataclass(frozen=True, slots=True)
class Callers:
    """Maps the SHA-256 of a key to its caller and to the second since 1970 at which it expires."""

    by_digest: Mapping[bytes, tuple[Caller, float]] = field(default_factory=dict)
    groups: Mapping[str, Policy] = field(default_factory=dict)
    default: Policy = NO_POLICY

    def find(self, key_digest: bytes, now: float) -> Caller | None:
        """Return the caller of a key at `now`, in seconds since 1970; None for no valid key."""
        entry = self.by_digest.get(key_digest)
        return entry[0] if entry and now < entry[1] else None

    def all(self, with_tokens: bool) -> Iterator[Caller]:
        """Yield the callers of all keys and, `with_tokens`, one of each kind of token."""
        yield from (caller for caller, _ in self.by_digest.values())
        if with_tokens:
            yield from (self.of_token(group, [group]) for group in ("", *self.groups))

    def of_token(self, name: str, claimed_groups: Iterable[str]) -> Caller:
        """Return the caller of a token: never an admin, in any group.

        Among several claimed groups, the first one in the file counts.
        """
        claimed = set(claimed_groups)
        group = next((group for group in self.groups if group in claimed), "")
        policies = (self.groups.get(group, NO_POLICY), self.default)
        return _caller(JWT_PREFIX + name, group, NO_POLICY, *policies, may_be_admin=False)


def callers(fixed: Mapping[str, str], file: KeyFile) -> Callers:
    """Return the table of the `fixed` keys by name and of the file, whose names take precedence.

    Raises SettingsError for a key that belongs to two names, except as lines `name: key`, where
    the first name counts.
    """
    plain = {name: KeyEntry((key_digest(key.encode()),)) for name, key in fixed.items()}
    entries = {**plain, **file.entries}
    if not file.is_plain and (names := shared_key(entries)):
        raise SettingsError(
            f"one key belongs to {' and to '.join(names)}, in api_keys and api_keys_file: "
            "remove one of them"
        )
    table: dict[bytes, tuple[Caller, float]] = {}
    for name, entry in entries.items():
        caller = _of_key(name, entry, file)
        for digest in entry.digests:
            table.setdefault(digest, (caller, entry.expires_at))
    return Callers(table, file.groups, file.default)


def _of_key(name: str, entry: KeyEntry, file: KeyFile) -> Caller:
    group = file.groups.get(entry.group, NO_POLICY)
    return _caller(name, entry.group, entry.policy, group, file.default)


def _caller(
    name: str, group: str, own: Policy, of_group: Policy, default: Policy, may_be_admin: bool = True
) -> Caller:
    """Resolve a caller's policy: its own values, else its group's, else the default's."""
    policies = (own, of_group, default)
    return Caller(
        name,
        group,
        limits=_limits(own, default),
        group_limits=of_group.limits,
        models=_first(None, *(policy.models for policy in policies)),
        priority=_first(Priority.STANDARD, *(policy.priority for policy in policies)),
        weight=_first(1.0, own.weight, default.weight),
        group_weight=_first(1.0, of_group.weight),
        admin=may_be_admin and _first(False, *(policy.admin for policy in policies)),
    )


def _limits(own: Policy, default: Policy) -> Limits:
    if own is NO_POLICY:
        return default.limits
    return own.limits.or_those_of(default.limits)


def _first(otherwise: T, *values: T | None) -> T:
    return next((value for value in values if value is not None), otherwise)
