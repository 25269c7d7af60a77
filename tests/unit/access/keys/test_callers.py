"""The table of callers: one look-up, and each policy resolved once."""

from pathlib import Path

import pytest

from serve_app.access.caller import Caller
from serve_app.access.keys.callers import Callers, callers
from serve_app.access.keys.file import key_digest, parse_keys
from serve_app.access.policies import Limits
from serve_app.engines.base import Priority
from serve_app.errors import SettingsError

FILE = Path("keys")
ALL = """
plain: sk-plain
own: {key: sk-own, group: team, models: b, priority: interactive, weight: 2, max_parallel: 1}
member: {key: sk-member, group: team}
groups:
  team: {models: a, priority: batch, weight: 3, tokens_per_day: 9, admin: true}
default: {models: d, weight: 5, max_parallel: 4, requests_per_minute: 6}
"""


def table(text: str, fixed: dict[str, str] | None = None) -> Callers:
    return callers(fixed or {}, parse_keys(text, FILE))


def caller(entries: Callers, key: str, now: float = 0) -> Caller:
    who = entries.find(key_digest(key.encode()), now)
    assert who
    return who


def test_a_key_states_its_own_policy() -> None:
    """Its own values first; limits that it does not state are the default's."""
    assert caller(table(ALL), "sk-own") == Caller(
        "own",
        "team",
        limits=Limits(max_parallel=1, requests_per_minute=6),
        group_limits=Limits(tokens_per_day=9),
        models=("b:latest",),
        priority=Priority.INTERACTIVE,
        weight=2,
        group_weight=3,
        admin=True,
    )


def test_a_member_has_the_policy_of_its_group() -> None:
    """But limits, which the members of a group share, stay the group's."""
    assert caller(table(ALL), "sk-member") == Caller(
        "member",
        "team",
        limits=Limits(max_parallel=4, requests_per_minute=6),
        group_limits=Limits(tokens_per_day=9),
        models=("a:latest",),
        priority=Priority.BATCH,
        weight=5,
        group_weight=3,
        admin=True,
    )


def test_a_plain_key_has_the_default_policy() -> None:
    """It is in no group."""
    assert caller(table(ALL), "sk-plain") == Caller(
        "plain",
        limits=Limits(max_parallel=4, requests_per_minute=6),
        models=("d:latest",),
        weight=5,
    )


def test_lines_give_a_name_and_nothing_else() -> None:
    """As ever: no limit, every model."""
    assert caller(table("alice: sk-a"), "sk-a") == Caller("alice")


def test_an_expired_key_is_none() -> None:
    """From the first moment of its last date on, in UTC."""
    entries = table("a: {key: k, expires: 1970-01-02}")
    assert entries.find(key_digest(b"k"), 86399)
    assert entries.find(key_digest(b"k"), 86400) is None


def test_an_hour_of_another_zone_is_meant() -> None:
    """Where the file says so."""
    entries = table('a: {key: k, expires: "1970-01-01T02:00+01:00"}')
    assert entries.find(key_digest(b"k"), 3599)
    assert entries.find(key_digest(b"k"), 3600) is None


def test_names_of_the_file_come_before_settings() -> None:
    """The key of the same name in `api_keys` is no longer valid."""
    entries = table("alice: sk-new", {"alice": "sk-old", "bob": "sk-b"})
    assert entries.find(key_digest(b"sk-old"), 0) is None
    assert caller(entries, "sk-new").name == "alice"
    assert caller(entries, "sk-b").name == "bob"


def test_of_equal_keys_in_lines_the_first_name_counts() -> None:
    """As ever; names in settings come first."""
    assert caller(table("a: k\nb: k"), "k").name == "a"
    assert caller(table("a: k", {"z": "k"}), "k").name == "z"


def test_yaml_and_settings_share_no_key() -> None:
    """The policy in the file would not be in force."""
    with pytest.raises(SettingsError, match="one key belongs to z and to a"):
        table("a: {key: k}", {"z": "k"})


def test_a_token_has_the_policy_of_its_group_and_is_no_admin() -> None:
    """Even if the group's keys are; limits of its own are the default's."""
    assert table(ALL).of_token("ada", ["x", "team"]) == Caller(
        "jwt:ada",
        "team",
        limits=Limits(max_parallel=4, requests_per_minute=6),
        group_limits=Limits(tokens_per_day=9),
        models=("a:latest",),
        priority=Priority.BATCH,
        weight=5,
        group_weight=3,
    )


def test_a_token_of_an_unknown_group_has_the_default_policy() -> None:
    """It is in no group, whatever it claims."""
    who = table(ALL).of_token("ada", ["own", "default", "groups"])
    assert (who.group, who.models, who.admin) == ("", ("d:latest",), False)


def test_of_several_claimed_groups_the_first_in_the_file_counts() -> None:
    """The operator orders them, not the provider."""
    entries = table("groups: {a: {weight: 2}, b: {weight: 3}}")
    assert entries.of_token("ada", ["b", "a"]).group == "a"
