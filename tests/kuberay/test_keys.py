"""The file of keys in the comment of the manifest is one."""

import itertools
import re
from pathlib import Path

import yaml

from serve_app.access.keys import file as key_file
from tests.support.manifests import FOLDER


def test_the_secret_in_the_comment_is_a_file_of_keys() -> None:
    """Whoever takes the comment signs away replaces the hashes and has a valid Secret."""
    text = (FOLDER / "rayservice.yaml").read_text()
    (lines,) = re.findall(r"(?:^#   .*\n)*^#   kind: Secret\n(?:^#   .*\n)*", text, re.MULTILINE)
    secret = yaml.safe_load(re.sub("^#   ", "", lines, flags=re.MULTILINE))
    assert secret["metadata"]["name"] == "llm-api-keys"
    numbers = itertools.count()
    keys = re.sub(
        r"\bHASH\b(?=[,}])", lambda _: f"{next(numbers):064x}", secret["stringData"]["keys"]
    )
    assert len(key_file.parse_keys(keys, Path("keys")).entries) == 2
