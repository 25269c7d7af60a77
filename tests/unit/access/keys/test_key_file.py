"""The file of keys: lines `name: key` as ever, YAML strictly, and nothing that is no small file."""

import os
import random
from hashlib import sha256
from pathlib import Path

import pytest

from serve_app.access.keys.file import KeyFile, parse_keys, read_keys
from serve_app.access.policies import Policy
from serve_app.engines.base import Priority
from serve_app.errors import SettingsError

FILE = Path("keys")
HASH = sha256(b"sk-hashed").hexdigest()


def digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


def one(text: str) -> KeyFile:
    return parse_keys(text, FILE)


def refusal(text: str) -> str:
    with pytest.raises(SettingsError, match="api_keys_file: keys ") as refused:
        one(text)
    return str(refused.value)


def test_lines_are_keys_by_name() -> None:
    """Empty lines and comments don't count; a key may have colons in it."""
    file = one("# ours\nalice: sk-a\n\n  bob:sk:b\nalice: sk-new\n")
    assert {name: entry.digests for name, entry in file.entries.items()} == {
        "alice": (digest("sk-new"),),
        "bob": (digest("sk:b"),),
    }
    assert file.is_plain


def rules_of_lines(text: str) -> dict[str, str] | None:
    """The rules of the first version, which knew lines only; None: refused."""
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition(":") for line in lines if line and not line.startswith("#")]
    keys = {name.strip(): key.strip() for name, _, key in pairs}
    return keys if keys and all(name and key for name, key in keys.items()) else None


PARTS = ["a", "b", ":", ": ", " ", "#", "\n", "\r\n", '"', "'", "[", "&", "*", "!", "- ", "\t", "é"]


@pytest.mark.parametrize("seed", range(8))
def test_files_of_lines_are_judged_as_ever(seed: int) -> None:
    """Without a mapping in braces every file has its old verdict, whatever YAML would say."""
    chance = random.Random(seed)
    for _ in range(250):
        text = "".join(chance.choices(PARTS, k=chance.randint(0, 30)))
        expected = rules_of_lines(text)
        try:
            entries = one(text).entries
        except SettingsError:
            assert expected is None, text
        else:
            assert expected is not None, text
            assert {n: e.digests for n, e in entries.items()} == {
                name: (digest(key),) for name, key in expected.items()
            }


def test_yaml_has_keys_hashes_and_policies() -> None:
    """Every field has its place; a plain key may stand beside mappings."""
    file = one(
        f"""
        alice: "sk-a"   # the oldest
        bob:
          keys: [sk-old, sk-new]
          group: team
          models: [llama3, "hf.co/*"]
          priority: batch
          weight: 2
          max_parallel: 3
          admin: true
          expires: 2027-06-30
        carol: {{sha256: {HASH}}}
        groups:
          team: {{tokens_per_day: 1000}}
        default: {{requests_per_minute: 60}}
        """
    )
    bob = file.entries["bob"]
    assert file.entries["alice"].digests == (digest("sk-a"),)
    assert file.entries["carol"].digests == (digest("sk-hashed"),)
    assert bob.digests == (digest("sk-old"), digest("sk-new"))
    assert (bob.group, bob.expires_at) == ("team", 1814313600)
    assert bob.policy == Policy(
        models=("llama3", "hf.co/*"), priority=Priority.BATCH, weight=2, max_parallel=3, admin=True
    )
    assert file.groups == {"team": Policy(tokens_per_day=1000)}
    assert file.default == Policy(requests_per_minute=60)


def test_a_key_and_its_successor_may_be_hashes() -> None:
    """So that a key can be replaced while both are valid."""
    file = one(f"bob: {{key: sk-old, sha256: [{HASH}]}}")
    assert file.entries["bob"].digests == (digest("sk-old"), digest("sk-hashed"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: {key: k, wieght: 3}", "a.wieght is unknown"),
        ("a: {key: k}\ngroups: {g: {group: x}}", "groups.g.group is unknown"),
        ("a: {key: k}\ndefault: {expires: 2030-01-01}", "default.expires is unknown"),
        ("a: {key: k, weight: -1}", "a.weight: .* not '-1'"),
        ("a: {key: k, weight: nan}", "a.weight: .* not 'nan'"),
        ("a: {key: k, max_parallel: 0}", "a.max_parallel: .* not '0'"),
        ("a: {key: k, max_parallel: 1.5}", "a.max_parallel: .* not '1.5'"),
        ("a: {key: k, priority: urgent}", "a.priority: .* not 'urgent'"),
        ("a: {key: k, admin: maybe}", "a.admin: .* not 'maybe'"),
        ("a: {key: k, models: []}", "a.models: "),
        ("a: {key: k, expires: soon}", "a.expires: .* not 'soon'"),
        ("a: {key: k, group: g}", "a.group: 'g' is not in groups"),
        ("a: {key: k}\nb: {key: k}", "one key belongs to a and b"),
        ("a: {keys: [k, k]}", "one key belongs to a, twice"),
        ("a: {key: k}\na: {key: l}", "line 2: the name occurs twice"),
        ("a: {key: k, key: l}", "line 1: the name occurs twice"),
        ("a: {weight: 1}", "a: has no key"),
        ("a: {keys: []}", "a: has no key"),
        ("a: {key: ''}", "a.key: the key is empty"),
        ("a: {key: k}\nb:", "b: the key is empty"),
        ("a: {sha256: abc}", "a.sha256.0: must be a SHA-256 hash"),
        ("jwt:a: {key: k}", "has a name that is not made of"),
        ("a b: {key: k}", "has a name that is not made of"),
        ("a" * 65 + ": {key: k}", "has a name that is not made of"),
        ("sk-a: alice\nb: {key: k}", "has a name that begins with sk-"),
        ("a: {key: k}\ngroups: {a b: {}}", "groups has a name that is not made of"),
        ("a: {key: k}\ngroups: [g]", "groups must be a mapping"),
        ("a: &x {key: k}\nb: *x", "line 1: anchors"),
        ("a: {key: k}\nb: !!python/name:os.system x", "line 2: tags"),
        ("a: {key: k}\n---\nb: {key: l}", "one document"),
        ("a: {key: [[[[[[[[k]]]]]]]]}", "nested too deeply"),
        ("- a\n- b", "line 1: the file must be a mapping"),
        ("a: {key: k", "this is not YAML"),
        ("", "must have a line `name: key`"),
        ("# none\n", "must have a line `name: key`"),
        ("alice: k\nbob:", "must have a line `name: key`"),
        ("alice: k\n  bob", "must have a line `name: key`"),
    ],
)
def test_impossible_files_are_refused_by_name(text: str, sentence: str) -> None:
    """The sentence names the place, and the value where that is no key."""
    with pytest.raises(SettingsError, match=sentence):
        one(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: {key: sk-secret, x: y}",
        "a: {sk-secret: y}",
        "sk-secret: alice\nb: {key: k}",
        "sk-secret: {key: alice}",
        "a: {key: k}\ngroups: {sk-secret: {}}",
        "a: {key: sk-secret}\nb: {key: sk-secret}",
        "a: {keys: [sk-secret, 'sk-secret x']}",
        "a: {sha256: sk-secret}",
        "sk-secret b: {key: k}",
        "a: {key: sk-secret",
        "a: {key: sk-secret, key: sk-secret}",
        "sk-secret\n",
        "a: {key: k, weight: sk-secret-0123456789ab}",
        "a: {key: k, weight: sk-secret}",
        "a: {key: k, expires: sk-secret}",
        "a: {key: k, group: sk-secret}",
        "a: {key: k, group: 0123456789-sk-secret-01234}",
        "groups: {a: sk-secret}",
        "groups: sk-secret\nb: {key: k}",
        "default: sk-secret\nb: {key: k}",
        "default: [sk-secret]\nb: {key: k}",
        "b: [sk-secret]\ngroups:",
        "b: {key: [sk-secret]}",
        "b: {keys: sk-secret}",
        "b: {keys: {sk-secret: x}}",
        ": sk-secret",
        "a: 'sk-secret\nb:",
    ],
)
def test_a_refusal_shows_no_key(text: str) -> None:
    """Wherever in the file the key stands."""
    assert "sk-secret" not in refusal(text)


def test_a_file_that_has_lost_its_last_key_is_valid() -> None:
    """It refuses everybody, where an invalid one would leave the last key in force."""
    assert one("groups:\n").entries == {}


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(SettingsError, match="Is a directory"):
        read_keys(tmp_path)


@pytest.mark.timeout(5)
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """Nobody writes into it, so reading it would never end."""
    os.mkfifo(tmp_path / "keys")
    with pytest.raises(SettingsError, match="is not a regular file"):
        read_keys(tmp_path / "keys")


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """10 MB, of which no more than 1 MiB is read."""
    (tmp_path / "keys").write_bytes(b"alice: sk-a\n" * 870_000)
    with pytest.raises(SettingsError, match="is larger than 1 MiB"):
        read_keys(tmp_path / "keys")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error names the setting and the file."""
    with pytest.raises(SettingsError, match=r"api_keys_file: .*/keys"):
        read_keys(tmp_path / "keys")
