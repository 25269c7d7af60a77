"""Settings: arguments, then environment, then defaults; what can't work is refused by name."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.access.keys.file import read_keys
from serve_app.engine_settings import EngineSettings
from serve_app.errors import SettingsError
from serve_app.pool_settings import Pool
from serve_app.ray_serve.engine_host import EngineHost
from serve_app.setting_errors import error_sentences
from serve_app.settings import Settings


def test_defaults_make_one_direct_pool() -> None:
    """Nothing set: one pool with the embedded model, one hop."""
    settings = Settings()
    assert settings.resolved_topology == "direct"
    assert [pool.models for pool in settings.all_pools] == [("smollm2:135m",)]


@pytest.mark.parametrize(
    "arguments",
    [
        {"autoscaling": {"min_replicas": 0}},
        {"pools": [{"name": "a", "models": "x"}, {"name": "b", "models": "y"}]},
        {"pools": [{"name": "a", "routing": "session"}]},
    ],
)
def test_what_one_hop_can_not_do_needs_the_gateway(arguments: dict[str, Any]) -> None:
    """A pool that may be empty, several of them, sessions."""
    assert Settings.model_validate(arguments).resolved_topology == "gateway"


@pytest.mark.parametrize(
    ("arguments", "routing"),
    [
        ({}, "least_loaded"),
        ({"topology": "gateway"}, "affinity"),
        ({"pools": [{"name": "a", "models": "x"}, {"name": "b", "models": "y"}]}, "affinity"),
        ({"topology": "gateway", "routing": "least_loaded"}, "least_loaded"),
        ({"routing": "session"}, "session"),
    ],
)
def test_a_gateway_sends_calls_where_their_prompt_is_cached(
    arguments: dict[str, Any], routing: str
) -> None:
    """Unless it is told otherwise; without one, HAProxy takes the least loaded replica."""
    pools = Settings.model_validate(arguments).all_pools
    assert {pool.routing for pool in pools} == {routing}


def test_arguments_beat_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray calls it: `model_validate` of what `serve run` was given."""
    monkeypatch.setenv("SERVE_APP_MODELS", "a, b:1")
    monkeypatch.setenv("SERVE_APP_ENGINE__KIND", "simulated")
    monkeypatch.setenv("SERVE_APP_ENGINE__SLOTS", "7")
    settings = Settings.model_validate({"models": "c"})
    assert settings.models == ("c",)
    assert (settings.engine.kind, settings.engine.slots) == ("simulated", 7)
    assert Settings().models == ("a", "b:1")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"modles": "a"}, "modles"),
        ({"engine": {"knid": "ollama"}}, r"engine\.knid"),
        ({"models": "a,A:latest"}, "models names .*a:latest twice"),
        ({"models": ""}, "models"),
        ({"engine": {"kind": "attach"}}, r"engine\.kind attach needs engine\.url"),
        ({"engine": {"kind": "ollama", "url": "http://x"}}, r"engine\.url"),
        (
            {"engine": {"kind": "ollama", "long_prompts": "refuse"}},
            r"engine\.long_prompts refuse needs engine\.kind llamacpp, not ollama",
        ),
        ({"engine": {"kind": "llamacpp"}, "models": "a,b"}, r"engine\.kind llamacpp serves one"),
        ({"autoscaling": {"target_ongoing_requests": 20}}, "target_ongoing_requests"),
        ({"autoscaling": {"min_replicas": 3, "max_replicas": 2}}, "min_replicas"),
        ({"autoscaling": {"initial_replicas": 5}}, "initial_replicas"),
        ({"topology": "direct", "autoscaling": {"min_replicas": 0}}, "topology direct"),
        ({"topology": "direct", "pools": [{"name": "a"}, {"name": "b", "models": "x"}]}, "pools"),
        ({"pools": [{"name": "a"}, {"name": "b"}]}, "smollm2:135m.* more than one pool"),
        ({"pools": [{"name": "a"}, {"name": "a", "models": "x"}]}, "pools names a twice"),
        ({"pools": [{"name": "a"}], "queue": 3}, "queue is set beside pools"),
        ({"limits": {"cost": {"b": {}}}, "models": "a"}, "limits.cost: no pool serves b"),
        ({"limits": {"cost": {"A": {}}}, "models": "a"}, "limits.cost: no pool serves A"),
        ({"limits": {"cost": {"a": {}, "a:latest": {}}}, "models": "a"}, "names a:latest twice"),
        ({"first_token_timeout_s": 999, "generation_timeout_s": 9}, "first_token_timeout_s"),
    ],
)
def test_what_cannot_work_is_refused_by_name(arguments: dict[str, Any], sentence: str) -> None:
    """The error names the field."""
    with pytest.raises(ValidationError, match=sentence):
        Settings.model_validate(arguments)


def test_a_mistyped_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with our prefix that is not a setting would otherwise be ignored in silence."""
    monkeypatch.setenv("SERVE_APP_MODLES", "a")
    with pytest.raises(
        ValidationError, match="SERVE_APP_MODLES is not a setting: did you mean SERVE_APP_MODELS"
    ):
        Settings()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"engine": {"slot": 3}}, "engine.slot is not a setting: did you mean engine.slots?"),
        (
            {"pools": [{"name": "a", "models": "m", "engine": {"slot": 3}}]},
            "pools.0.engine.slot is not a setting: did you mean pools.0.engine.slots?",
        ),
        ({"zzzzz": 1}, "zzzzz is not a setting: all names are in docs/settings.md"),
    ],
)
def test_a_mistyped_argument_gets_a_proposal(arguments: dict[str, Any], sentence: str) -> None:
    """The error shows the most similar name, if there is one."""
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate(arguments)
    assert any(line.startswith(sentence) for line in error_sentences(refused.value))


def test_settings_are_frozen() -> None:
    """What was validated stays as it is."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().queue = 3  # type: ignore[misc]


@pytest.mark.parametrize("key", ["", " alice"])
def test_a_refused_key_whose_name_is_a_key_shows_neither(key: str) -> None:
    """Where the two are swapped."""
    with pytest.raises(ValueError, match="api_keys") as refused:
        Settings(api_keys={"sk-secret-key": key})
    assert "secret" not in str(refused.value)


def test_keys_do_not_show() -> None:
    """Neither in a print nor in the error about another field."""
    keys = {"api_keys": {"alice": "sk-secret"}}
    assert "sk-secret" not in repr(Settings.model_validate(keys))
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({**keys, "queue": "x"})
    assert "sk-secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nonsense", "like http://127.0.0.1:11434"),
        ("localhost:11434", "like http://localhost:11434"),
        ("10.0.0.1:11434/ollama", "like http://10.0.0.1:11434/ollama"),
        ("ftp://host", "not an address"),
        ("http://", "not an address"),
        ("http://:11434", "not an address"),
        ("http://host:port", "not an address"),
        ("http://host:99999", "not an address"),
        ("http://host:0", "not an address"),
        ("http://[::1", "not an address"),
        ("http://ho st", "not an address"),
        ("", "not an address"),
        ("ftp://user:secret@host", "not an address"),
        ("http://user:secret@host", "remove the rest"),
        ("http://host?a=b", "remove the rest"),
    ],
)
def test_an_address_of_an_engine_is_one(url: str, sentence: str) -> None:
    """Or it is refused at deployment, with one that works; a password is not shown."""
    with pytest.raises(ValidationError, match=sentence) as refused:
        Settings.model_validate({"engine": {"kind": "attach", "url": url}})
    assert "engine.url" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:11434", "https://ollama.example/v/", "http://[::1]:11434", "http://h"]
)
def test_what_can_be_an_engines_address_is_taken(url: str) -> None:
    """A slash at the end means nothing."""
    settings = Settings.model_validate({"engine": {"kind": "attach", "url": url}})
    assert settings.engine.url == url.rstrip("/")


JWT = {"issuer": "a", "audience": "b", "jwks": "c"}
BAD: list[tuple[dict[str, Any], str]] = [
    *(({"models": name}, "models") for name in ("a b", "a//b", "/a", "a:", ":a", "a/b/c/d", "é")),
    ({"models": "x" * 600}, "not a model name"),
    *(({"allowed_hosts": host}, "allowed_hosts") for host in ("http://x", "x:80", "[::1]", "*.x")),
    *(
        ({"allowed_origins": text}, "allowed_origins")
        for text in ("x", "https://x/", "https://x:443", "https://X", "https://*.x", "https://x/a")
    ),
    ({"api_keys": {"alice": ""}}, "api_keys"),
    ({"api_keys": {"alice": " key"}}, "api_keys"),
    ({"api_keys": {"": "key"}}, "api_keys"),
    ({"api_keys": {"jwt:ada": "key"}}, "api_keys"),
    ({"jwt": {"issuer": "a", "jwks": "b"}}, "jwt.audience"),
    ({"jwt": {**JWT, "algorithms": "HS256"}}, "jwt.algorithms"),
    ({"jwt": {**JWT, "algorithms": "none"}}, "jwt.algorithms"),
    ({"jwt": {**JWT, "jwks": "ftp://a/b"}}, "jwt.jwks"),
    ({"jwt": {**JWT, "jwks": "https://user:secret@a/b"}}, "jwt.jwks"),
    ({"engine": {"kind": "ollama", "binary": ""}}, "binary"),
    ({"engine": {"env": {"A=B": "c"}}}, "environment variable"),
    ({"engine": {"env": {"": "c"}}}, "environment variable"),
    ({"engine": {"env": {"A": "\0"}}}, "NUL"),
    ({"engine": {"env": {"OLLAMA_HOST": "0.0.0.0"}}}, "OLLAMA_HOST"),
    ({"engine": {"kind": "ollama", "model_path": "x.gguf"}}, "model_path"),
    *(({"ray_actor_options": {"num_gpus": n}}, "num_gpus") for n in (1.5, 2.25)),
    ({"gateway": {"ray_actor_options": {"num_gpus": 1.5}}}, "num_gpus"),
    *(
        ({"tracing": {"endpoint": url}}, "(?s)tracing.endpoint.*like http://localhost:4318")
        for url in ("nonsense", "h:4318", "http://h:99999", "http://h:x", "http://[h", "http://a b")
    ),
    *(({"jwt": {**JWT, "jwks": f"https://h:{port}/"}}, "jwt.jwks") for port in ("99999", "x", 0)),
    *(
        (
            {"limits": {"store": "redis", "redis_url": url}},
            "(?s)limits.redis_url.*like redis://llm-",
        )
        for url in ("h:6379", "redis://", "redis://h:x", "redis://h:99999/0", "redis://h/one")
    ),
    ({"limits": {"store": "redis", "redis_url": "unix://socket"}}, "unix:///path"),
    ({"autoscaling": {"goals_file": "goals.yaml"}}, "goals_file needs autoscaling.policy"),
    ({"autoscaling": {"look_back_period_s": 1}}, "look_back_period_s .1. is below"),
    ({"autoscaling": {"policy": "ahead", "metrics_interval_s": 5}}, "look_back_period_s .2. is"),
    ({"reserved_slots": 4}, r"reserved_slots \(4\) must be below engine.slots"),
    ({"fairness": {"aging_s": 60}}, r"fairness.aging_s \(60\) must be below the queue_timeout_s"),
    ({"fairness": {"queue_timeout_s": {"urgent": 9}}}, "urgent"),
    ({"fairness": {"queue_timeout_s": {"batch": 0}}}, "batch"),
]
QUANTITIES = [
    *("max_body_mib", "body_timeout_s", "generation_timeout_s", "queue_timeout_s"),
    *("engine_wait_s", "engine.start_timeout_s", "engine.stop_grace_s"),
    *("engine.simulated.load_s", "autoscaling.upscale_delay_s", "gateway.hold_s"),
    *("fairness.half_life_s", "fairness.aging_s"),
]


@pytest.mark.parametrize(("arguments", "word"), BAD)
def test_what_names_nothing_is_refused(arguments: dict[str, Any], word: str) -> None:
    """A host that no header says, a model that no caller can ask for, a key that never comes."""
    with pytest.raises(ValidationError, match=word):
        Settings.model_validate(arguments)


def test_a_wait_may_differ_by_priority() -> None:
    """And a replica that must stop waits for the longest; aging comes before its end."""
    settings = Settings.model_validate({"fairness": {"queue_timeout_s": {"batch": 600}}})
    assert settings.queue_timeouts_s == {"interactive": 60, "standard": 60, "batch": 600}
    assert settings.aging_s == 450
    assert settings.shutdown_timeout_s > 600 + settings.generation_timeout_s


def test_what_replicas_do_not_queue_waits_in_the_gateway() -> None:
    """A replica queues one, keeps places free of batch, and gets more where scaling needs it."""
    pool = {"engine": {"slots": 4}, "queue": 16, "autoscaling": {"max_replicas": 3}}
    (usual,) = Settings.model_validate(pool).all_pools
    assert (usual.max_ongoing_requests(False), usual.max_waiting) == (5, 4 * 20 + 3 * 15)
    (reserved,) = Settings.model_validate(pool | {"reserved_slots": 1}).all_pools
    assert (reserved.batch_places, reserved.max_ongoing_requests(False)) == (5, 6)
    (late,) = Settings.model_validate(
        pool | {"autoscaling": {"target_ongoing_requests": 10}}
    ).all_pools
    assert late.max_ongoing_requests(False) == 11
    (full,) = Settings.model_validate(pool | {"queue": 0, "reserved_slots": 1}).all_pools
    assert (full.batch_places, full.max_ongoing_requests(False)) == (3, 4)
    (affine,) = Settings.model_validate(pool | {"routing": "affinity"}).all_pools
    assert (affine.max_ongoing_requests(False), affine.max_waiting) == (20, 4 * 20)


@pytest.mark.parametrize(
    "keys", [{"api_keys": {"a": "k" * 32}}, {"api_keys_file": "keys.yaml"}], ids=["keys", "file"]
)
def test_with_keys_a_replica_queues_one(keys: dict[str, Any]) -> None:
    """The fair queue of the gateway orders the others, although prompts are cached somewhere."""
    pool = {"engine": {"slots": 4}, "topology": "gateway", "routing": "affinity"}
    (affine,) = Settings.model_validate(pool | keys).all_pools
    assert affine.max_ongoing_requests(False) == 5
    (sticky,) = Settings.model_validate(pool | keys | {"routing": "session"}).all_pools
    assert sticky.max_ongoing_requests(False) == sticky.admitted


@pytest.mark.parametrize("number", ["inf", "nan", "-inf"])
@pytest.mark.parametrize("name", QUANTITIES)
def test_a_quantity_is_a_number(name: str, number: str) -> None:
    """Neither infinite nor none at all."""
    *groups, last = name.split(".")
    arguments: Any = {last: float(number)}
    for group in reversed(groups):
        arguments = {group: arguments}
    with pytest.raises(ValidationError, match=last):
        Settings.model_validate(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"models": "hf.co/owner/Some-Model_1.5:Q4_K_M,localhost:5000/ns/m,a,library/b:1"},
        {"allowed_hosts": "llm-serve-svc.default.svc,10.0.0.1,::1,*"},
        {"allowed_origins": "https://chat.example,http://10.0.0.1:3000,app://obsidian.md,null,*"},
        {"limits": {"store": "redis", "redis_url": "rediss://user:secret@h:6379/1?timeout=5"}},
        {"limits": {"store": "redis", "redis_url": "unix:///run/redis.sock?db=1"}},
        {"tracing": {"endpoint": "https://[::1]:4318/v1"}},
        {"ray_actor_options": {"num_gpus": 0.5}},
        {"ray_actor_options": {"num_gpus": 2.0}},
    ],
)
def test_what_works_is_taken(arguments: dict[str, Any]) -> None:
    """As it is."""
    Settings.model_validate(arguments)


def files(tmp_path: Path) -> dict[str, tuple[EngineSettings, str]]:
    """Settings whose files are not what they should be, with the sentence about each."""
    other, empty = tmp_path / "other.gguf", tmp_path / "empty.gguf"
    other.write_bytes(b"PK\3\4 and so on")
    empty.touch()
    llamacpp = partial(EngineSettings, kind="llamacpp")
    return {
        "absent": (llamacpp(model_path=tmp_path / "absent"), "No such file"),
        "a folder": (llamacpp(model_path=tmp_path), "Is a directory"),
        "another file": (llamacpp(model_path=other), "not a GGUF file"),
        "an empty file": (llamacpp(model_path=empty), "not a GGUF file"),
        "no folder": (EngineSettings(kind="ollama", models_dir=other), "not a directory"),
    }


@pytest.mark.parametrize(
    "case", ["absent", "a folder", "another file", "an empty file", "no folder"]
)
async def test_files_are_looked_at_where_the_engine_runs(case: str, tmp_path: Path) -> None:
    """No start would help, so the replica fails at once and says why."""
    engine, sentence = files(tmp_path)[case]
    pool = Pool(engine=engine)
    with pytest.raises(SettingsError, match=sentence):
        await EngineHost(Settings(engine=engine), pool, lambda status: None).start()


def test_a_file_of_keys_is_text(tmp_path: Path) -> None:
    """Or it is refused by name, and none of its bytes is shown."""
    file = tmp_path / "keys"
    file.write_bytes(b"alice: \xff\xfe\n")
    with pytest.raises(SettingsError, match="not UTF-8"):
        read_keys(file)
