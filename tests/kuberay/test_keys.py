"""The file of keys in the comment of the manifest is one."""

import itertools
import re
from pathlib import Path

import yaml

from serve_app.access.authenticator import authenticator
from serve_app.settings import Settings
from tests.support.manifests import FOLDER


def test_the_secret_in_the_comment_is_a_file_of_keys(tmp_path: Path) -> None:
    """With hashes in it the service as it is shipped, of several replicas, takes it."""
    text = (FOLDER / "rayservice.yaml").read_text()
    (lines,) = re.findall(r"(?:^#   .*\n)*^#   kind: Secret\n(?:^#   .*\n)*", text, re.MULTILINE)
    secret = yaml.safe_load(re.sub("^#   ", "", lines, flags=re.MULTILINE))
    assert secret["metadata"]["name"] == "llm-api-keys"
    numbers = itertools.count()
    keys = re.sub(
        r"\bHASH\b(?=[,}])", lambda _: f"{next(numbers):064x}", secret["stringData"]["keys"]
    )
    (tmp_path / "keys").write_text(keys)
    settings = Settings(api_keys_file=tmp_path / "keys")
    assert authenticator(settings, max_replicas=4).needs_key
    assert next(numbers) == 2
