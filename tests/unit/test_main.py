"""What `make run` sets for Ray, and its refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.__main__ import main, room
from serve_app.settings import Settings

TWO_POOLS = [
    {"name": "a", "models": "x", "autoscaling": {"max_replicas": 3}},
    {"name": "b", "models": "y", "ray_actor_options": {"num_cpus": 0.5}},
]


@pytest.mark.parametrize(
    ("settings", "cpus"),
    [
        ({}, None),
        ({"autoscaling": {"max_replicas": 2}}, None),
        ({"autoscaling": {"max_replicas": 3}}, 3),
        ({"autoscaling": {"max_replicas": 3}, "ray_actor_options": {"num_cpus": 0}}, None),
        ({"topology": "gateway", "gateway": {"max_replicas": 2}}, 3),
        ({"pools": TWO_POOLS, "gateway": {"max_replicas": 1}}, 5),
    ],
)
def test_there_is_room_for_every_replica(
    settings: dict[str, Any], cpus: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica takes a CPU unless its options differ; on two cores a gateway would get none."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    value = room(Settings.model_validate(settings)).get("RAY_OVERRIDE_RESOURCES")
    assert (json.loads(value) if value else None) == ({"CPU": cpus} if cpus else None)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SERVE_APP_ENGINE__URL", "host:1", "engine.url: 'host:1' is not an address"),
        ("SERVE_APP_MODLES", "a", "SERVE_APP_MODLES is not a setting"),
        ("SERVE_APP_POOLS", "x", "SERVE_APP_POOLS is not valid JSON"),
        ("SERVE_APP_ENGINE__ENV", "A=1", "SERVE_APP_ENGINE__ENV is not valid JSON"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    sentence: str,
) -> None:
    """It names the setting, and nothing of pydantic."""
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["serve_app"])
    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(sentence)
    assert "pydantic" not in line


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: {key: sk-a, wieght: 1}", "a.wieght is unknown here"),
        ("a: {key: sk-a, max_parallel: 1}", "the key a has limits, but limits.store is memory"),
    ],
)
def test_a_file_of_keys_that_can_not_work_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str,
    sentence: str,
) -> None:
    """Before Ray starts, which would show it below a traceback."""
    (tmp_path / "keys").write_text(text)
    monkeypatch.setenv("SERVE_APP_API_KEYS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("SERVE_APP_TOPOLOGY", "gateway")
    monkeypatch.setattr("sys.argv", ["serve_app"])
    monkeypatch.setattr("serve_app.__main__._run", lambda *_: 0)
    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
