"""Reads the metadata of a GGUF file without its weights.

A replica reads it at its start: 0.2 s in a new process, import included, where PyPI's gguf
takes 7.6 s (`python -m tests.bench.gguf_readers`).

Layout (little-endian, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): "GGUF", version
u32, tensor count u64, pair count u64, the pairs (key, type u32, value), then the tensors (name,
dimension count u32, dimensions u64, type u32, offset u64). A string is its length u64 and UTF-8.
"""

import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from serve_app.errors import SettingsError
from serve_app.go_json import float32

_VERSIONS = (2, 3)  # 1 had 32-bit counts
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_FLOAT32, _STRING, _ARRAY = 6, 8, 9

_TENSOR_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS",
    17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M",
    30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0", 42: "Q2_0",
}  # fmt: skip
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0",
    38: "MXFP4_MOE",
}  # fmt: skip

_TOKENIZER, _TOKENS = "tokenizer.ggml.model", "tokenizer.ggml.tokens"


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    type: str  # e.g. "Q4_1"
    shape: tuple[int, ...]  # fastest dimension first, as in the file
    offset: int  # bytes from the end of the header


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A file's metadata in its own order. Arrays are None unless they were requested."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def parameter_count(self) -> int:
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def quantization(self) -> str:
        return _FILE_TYPES.get(self.metadata.get("general.file_type", -1), "unknown")

    @property
    def chat_template(self) -> str:
        """Jinja text; empty when the model has none."""
        return str(self.metadata.get("tokenizer.chat_template", ""))

    @property
    def only_embeds(self) -> bool:
        """Whether the model serves embeddings only."""
        return f"{self.architecture}.pooling_type" in self.metadata

    def number(self, key: str) -> int:
        """Return the architecture's `key`, such as "context_length", or 0."""
        return int(self.metadata.get(f"{self.architecture}.{key}") or 0)


def read_header(path: Path, *, arrays: bool = False) -> GgufHeader:
    """Read the metadata of the file at `path`, with `arrays` (several MB of tokens) on request.

    Raises SettingsError when it can't be read or is not GGUF.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(path, _HeaderReader(data, arrays))
    except OSError as exc:
        raise SettingsError(f"the model file {path} can't be read: {exc.strerror}") from exc
    except (ValueError, KeyError, OverflowError, struct.error) as exc:
        raise SettingsError(f"the model file {path} is not a valid GGUF file: {exc}") from exc


def longest_token(header: GgufHeader) -> int:
    """Return the maximum of bytes that a token stands for, 0 where that is unknown.

    BPE ("gpt2", a character for every byte) and SentencePiece ("llama") spell nearly every text.
    WordPiece has one token for all unknown words.
    """
    length = {"gpt2": len, "llama": _utf8_length}.get(header.metadata.get(_TOKENIZER, ""))
    if length is None or _TOKENS not in header.metadata:
        return 0
    with (
        header.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return _longest(data, length)


def _longest(data: mmap.mmap, length: Callable[[str], int]) -> int:
    """Find the longest token; decoding only longer candidates takes 10 ms for 50,000 tokens."""
    name = struct.pack("<Q", len(_TOKENS)) + _TOKENS.encode()
    _, _, count = struct.unpack_from("<IIQ", data, at := data.find(name) + len(name))
    size_at, at, longest = struct.Struct("<Q").unpack_from, at + 16, 0
    for _ in range(count):
        start, at = at + 8, at + 8 + size_at(data, at)[0]
        if at - start > longest:
            longest = max(longest, length(data[start:at].decode(errors="replace")))
    return longest


def _utf8_length(text: str) -> int:
    return len(text.encode())


def _header(path: Path, reader: "_HeaderReader") -> GgufHeader:
    if reader.take(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version, tensors, pairs = reader.unpack("IQQ")
    if version not in _VERSIONS:
        raise ValueError(f"version {version} is unknown")
    metadata = {reader.string(): reader.value() for _ in range(pairs)}
    header = GgufHeader(path, metadata, tuple(reader.tensor() for _ in range(tensors)))
    for tensor in header.tensors:
        if tensor.offset >= reader.left:  # perhaps the download broke off
            raise ValueError(f"it is cut short, tensor {tensor.name} is missing")
    return header


class _HeaderReader:
    def __init__(self, data: mmap.mmap, arrays: bool) -> None:
        self._data = data
        self._arrays = arrays
        self._at = 0

    @property
    def left(self) -> int:
        """Number of bytes after the current position."""
        return len(self._data) - self._at

    def take(self, length: int) -> bytes:
        self._at += length
        if self._at > len(self._data):
            raise ValueError("it ends too early")
        return self._data[self._at - length : self._at]

    def unpack(self, form: str) -> tuple[Any, ...]:
        form = "<" + form
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values

    def string(self) -> str:
        return self.take(self.unpack("Q")[0]).decode()

    def value(self) -> Any:
        (kind,) = self.unpack("I")
        return self._array() if kind == _ARRAY else self._scalar(kind)

    def tensor(self) -> Tensor:
        name = self.string()
        (dimensions,) = self.unpack("I")
        *shape, kind, offset = self.unpack(f"{min(dimensions, 8)}QIQ")
        return Tensor(name, _TENSOR_TYPES.get(kind, "unknown"), tuple(shape), offset)

    def _scalar(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        (value,) = self.unpack(_SCALARS[kind])
        return float32(value) if kind == _FLOAT32 else value

    def _array(self) -> list[Any] | None:
        kind, count = self.unpack("IQ")
        if self._arrays:
            return [self._scalar(kind) for _ in range(count)]
        self._skip(kind, count)
        return None

    def _skip(self, kind: int, count: int) -> None:
        """Skip an array, which takes a few milliseconds for 50,000 tokens."""
        if kind != _STRING:
            self._at += count * struct.calcsize("<" + _SCALARS[kind])
            return
        length, data, at = struct.Struct("<Q").unpack_from, self._data, self._at
        for _ in range(count):
            at += 8 + length(data, at)[0]
        self._at = at
