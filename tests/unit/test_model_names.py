"""Model names as Ollama matches them."""

import pytest

from serve_app.model_names import ModelNames, full_name, model_pattern, plain_name


@pytest.mark.parametrize(
    "name",
    [
        "smollm2:135m",
        "SmolLM2:135M",
        "library/smollm2:135m",
        "LIBRARY/SmolLM2:135M",
        "registry.ollama.ai/library/smollm2:135m",
    ],
)
def test_one_model_has_many_spellings(name: str) -> None:
    """In any case, with library and registry or without."""
    assert ModelNames(["smollm2:135m"]).find(name) == "smollm2:135m"


@pytest.mark.parametrize(
    "name", ["smollm2", "smollm2:", "other/smollm2:135m", "evil.example/library/smollm2:135m", ""]
)
def test_other_models_are_not_found(name: str) -> None:
    """Another tag, namespace or registry is another model."""
    assert ModelNames(["smollm2:135m"]).find(name) is None


def test_no_tag_means_latest() -> None:
    """`name` and `name:latest` are one model, listed with its tag."""
    names = ModelNames(["Mixed"])
    assert names.find("mixed:latest") == names.find("MIXED") == "Mixed:latest"
    assert list(names) == ["Mixed:latest"]


def test_full_names_tell_models_apart() -> None:
    """Registry, namespace, model, tag."""
    assert full_name("me/model") == "registry.ollama.ai/me/model:latest"
    assert full_name("Host:5000/me/model:X") == "host:5000/me/model:x"


@pytest.mark.parametrize(
    ("pattern", "comparable"),
    [
        ("llama3", "llama3:latest"),
        ("library/SmolLM2:135m", "smollm2:135m"),
        ("registry.ollama.ai/library/llama3", "llama3:latest"),
        ("hf.co/Owner/Model:Q4", "hf.co/owner/model:q4"),
        ("*", "*"),
        ("Qwen*", "qwen*"),
        ("qwen?", "qwen?:latest"),
        ("*:7b", "*:7b"),
    ],
)
def test_patterns_are_comparable_with_plain_names(pattern: str, comparable: str) -> None:
    """In lower case, with a tag, without the library's prefix."""
    assert model_pattern(pattern) == comparable
    assert model_pattern(comparable) == comparable


@pytest.mark.parametrize("pattern", ["library/*", "Library/llama*", "registry.ollama.ai/*"])
def test_patterns_of_the_library_are_refused(pattern: str) -> None:
    """Without its prefix `library/*` would mean every model of everybody."""
    with pytest.raises(ValueError, match="must be without"):
        model_pattern(pattern)


def test_a_plain_name_is_the_shortest() -> None:
    """Of another namespace it keeps it."""
    assert plain_name("LIBRARY/Llama3") == "llama3:latest"
    assert plain_name("owner/llama3") == "owner/llama3:latest"
