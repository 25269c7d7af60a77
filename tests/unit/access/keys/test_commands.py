"""`python -m serve_app keys`: the key once, its hash in the file, every other line as it was."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.access.keys.commands import main
from serve_app.access.keys.file import key_digest, read_keys

COMMENTED = """\
# Keys of the house.
alice: sk-a   # the first

bob:
  # for the batch jobs
  key: sk-b
  priority: batch
# Of the laboratory:
carol: {key: sk-c,
  group: lab}

groups:
  lab:
    weight: 2  # half of it
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the environment names; it is not there yet."""
    monkeypatch.setenv("SERVE_APP_API_KEYS_FILE", str(tmp_path / "keys"))
    return tmp_path / "keys"


def new(name: str, *options: str) -> int:
    return main(["new", name, *options])


def test_a_new_key_is_printed_once_and_stored_as_a_hash(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stdout stands the key alone; the file is its owner's."""
    assert new("ada") == 0
    key = capsys.readouterr().out.rstrip("\n")
    assert re.fullmatch(r"sk-llm-[0-9a-f]{40}", key)
    assert read_keys(file).entries["ada"].digests == (key_digest(key.encode()),)
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_keys_differ(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is random."""
    new("ada")
    new("bea")
    first, second = capsys.readouterr().out.split()
    assert first != second


def test_a_new_key_leaves_all_other_lines(file: Path) -> None:
    """Comments too, and the mode of the file."""
    file.write_text(COMMENTED)
    file.chmod(0o640)
    assert new("dora", "--group", "lab") == 0
    assert file.read_text().startswith(COMMENTED)
    assert read_keys(file).entries["dora"].group == "lab"
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_file_of_lines_gets_a_key(file: Path) -> None:
    """It is YAML from then on, and its old keys stay valid."""
    file.write_text("# mine\nalice: sk-a")
    assert new("bob") == 0
    assert read_keys(file).entries["alice"].digests == (key_digest(b"sk-a"),)
    assert file.read_text().startswith("# mine\nalice: sk-a\nbob:\n")


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        ("alice: sk-a # b", ["new", "bob"], "was not changed: its other lines mean something else"),
        ("alice: sk-a", ["new", "alice"], "already has a key named alice: choose another name"),
        ("alice: sk-a", ["new", "bob", "--group", "lab"], "bob.group: 'lab' is not in groups"),
        ("alice: sk-a", ["new", "a b"], "name of a key is made of 1 to 64 of the characters"),
        ("alice: sk-a", ["new", "jwt:zoe"], "name of a key is made of 1 to 64 of the characters"),
        ("alice: sk-a", ["new", "groups"], "groups is reserved, .* choose another name"),
        (COMMENTED, ["new", "groups"], "groups is reserved, .* choose another name"),
        ("", ["new", "default"], "default is reserved, .* choose another name"),
        ("alice: sk-a", ["rotate", "bob"], "has no key named bob"),
        (COMMENTED, ["rotate", "groups"], "has no key named groups"),
        ("a: sk-a # b\nb: c", ["rotate", "b"], "its other lines mean something else as YAML"),
        (
            "a: {key: b, expires: 2020-01-01}",
            ["rotate", "a"],
            "a has expired .*change its `expires`",
        ),
        ("alice: sk-a", ["revoke", "bob", "--now"], "within a second .* put its entry back"),
        ("alice: sk-a", ["revoke", "bob"], "has no key named bob"),
        (COMMENTED, ["revoke", "groups"], "has no key named groups"),
        ("nonsense", ["new", "bob"], "no YAML|must be a mapping"),
        ("nonsense", ["list"], "no YAML|must be a mapping"),
    ],
)
def test_an_edit_that_can_not_be_is_refused(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    arguments: list[str],
    sentence: str,
) -> None:
    """The file stays as it is, and the error is one sentence on stderr."""
    file.write_text(text)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert re.search(sentence, shown.err)
    assert shown.out == ""
    assert file.read_text() == text


NEW = "NEW"  # in place of the new hash
OLD = "11" * 32


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# c\na: sk-a\nb: x", f'# c\na: {{key: "sk-a", sha256: {NEW}}}\nb: x'),
        ('a: old\nb: x\na: "sk-a"\n', f'b: x\na: {{key: "\\"sk-a\\"", sha256: {NEW}}}\n'),
        ("a: 'sk-a' # c\nb: {key: x}", f'a: {{key: "sk-a", sha256: {NEW}}} # c\nb: {{key: x}}'),
        ("a:\n  # c\n  key: x\n", f"a:\n  # c\n  sha256: {NEW}\n  key: x\n"),
        ("a: {key: x, admin: true}", f"a: {{sha256: {NEW}, key: x, admin: true}}"),
        (f"a:\n  sha256: {OLD} # c\n", f"a:\n  sha256: [{NEW}, {OLD}] # c\n"),
        (f"a: {{sha256: [{OLD}]}}", f"a: {{sha256: [{NEW}, {OLD}]}}"),
        (f"a:\n  sha256:\n    - {OLD}\n", f"a:\n  sha256:\n    - {NEW}\n    - {OLD}\n"),
        (f"a:\n  sha256:\n  - {OLD}\n", f"a:\n  sha256:\n  - {NEW}\n  - {OLD}\n"),
    ],
)
def test_a_rotated_name_has_one_more_key(
    file: Path, capsys: pytest.CaptureFixture[str], before: str, after: str
) -> None:
    """The old ones stay valid, and so does every other line."""
    file.write_text(before)
    old = read_keys(file).entries["a"].digests
    assert main(["rotate", "a"]) == 0
    key = capsys.readouterr().out.rstrip("\n")
    digest = key_digest(key.encode())
    assert file.read_text() == after.replace(NEW, digest.hex())
    assert set(read_keys(file).entries["a"].digests) == {*old, digest}


def test_a_name_is_rotated_more_than_once_and_then_revoked(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each time it has one more key; none is left in the end."""
    new("ada")
    for _ in range(2):
        assert main(["rotate", "ada"]) == 0
    keys = capsys.readouterr().out.split()
    assert set(read_keys(file).entries["ada"].digests) == {key_digest(k.encode()) for k in keys}
    assert main(["revoke", "ada"]) == 0
    assert read_keys(file).entries == {}


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("alice", COMMENTED.replace("alice: sk-a   # the first\n", "")),
        ("bob", re.sub(r"bob:\n(  .*\n)+", "", COMMENTED)),
        ("carol", COMMENTED.replace("carol: {key: sk-c,\n  group: lab}\n", "")),
    ],
)
def test_a_revoked_name_leaves_and_nothing_else(file: Path, name: str, rest: str) -> None:
    """Comments about others stay, and so does the mode."""
    file.write_text(COMMENTED)
    file.chmod(0o640)
    assert main(["revoke", name]) == 0
    assert file.read_text() == rest
    assert name not in read_keys(file).entries
    assert file.stat().st_mode & 0o777 == 0o640


def test_names_of_lines_are_revoked(file: Path) -> None:
    """Every line of that name."""
    file.write_text("alice: sk-a\nbob: sk-b\n# c\nalice: sk-c\n")
    assert main(["revoke", "alice"]) == 0
    assert file.read_text() == "bob: sk-b\n# c\n"


def test_the_last_key_can_be_revoked(file: Path) -> None:
    """What is left is a valid file, so that the key does not stay in force."""
    file.write_text("alice: sk-a\n")
    assert main(["revoke", "alice"]) == 0
    assert read_keys(file).entries == {}


def test_a_key_keeps_its_meaning_when_the_last_mapping_leaves(file: Path) -> None:
    """In a file of lines its quotes would be part of it."""
    file.write_text('alice: "sk-a"\nbob: {key: sk-b}\n')
    assert main(["revoke", "bob"]) == 0
    assert read_keys(file).entries["alice"].digests == (key_digest(b"sk-a"),)


def test_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    """The file that it names is replaced."""
    (tmp_path / "real").write_text("alice: sk-a\n")
    file.symlink_to("real")
    assert new("bob") == 0
    assert file.is_symlink()
    assert "bob" in read_keys(tmp_path / "real").entries


def test_no_part_of_an_edit_is_left(file: Path) -> None:
    """The file is written beside the old one, which it replaces in one step."""
    new("ada")
    assert [path.name for path in file.parent.iterdir()] == ["keys"]


def test_a_list_shows_no_key(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """But names, groups, and how many keys there are until when."""
    file.write_text(COMMENTED + "eve: {keys: [sk-e, sk-f], expires: 2027-06-30}\n")
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines()] == [
        ["NAME", "GROUP", "KEYS", "EXPIRES"],
        ["alice", "-", "1", "never"],
        ["bob", "-", "1", "never"],
        ["carol", "lab", "1", "never"],
        ["eve", "-", "2", "2027-06-30", "00:00", "UTC"],
    ]


def test_a_list_marks_expired_keys(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Others show when they expire."""
    file.write_text("eve: {key: sk-e, expires: 2020-06-30}\nfay: {key: x, expires: 9999-01-01}\n")
    assert main(["list"]) == 0
    _, eve, fay = capsys.readouterr().out.splitlines()
    assert eve.endswith("2020-06-30 00:00 UTC (expired)")
    assert fay.endswith("9999-01-01 00:00 UTC")


def test_a_file_must_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the option or by the setting."""
    monkeypatch.delenv("SERVE_APP_API_KEYS_FILE", raising=False)
    assert main(["list"]) == 2
    assert "add --file FILE" in capsys.readouterr().err


def test_the_commands_need_no_ray(tmp_path: Path) -> None:
    """They start at once, also where Ray is not installed."""
    code = (
        "import sys; sys.modules['ray'] = None; from serve_app.__main__ import main; "
        f"sys.argv = ['serve_app', 'keys', 'new', 'ada', '--file', {str(tmp_path / 'keys')!r}]; "
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ada" in read_keys(tmp_path / "keys").entries
