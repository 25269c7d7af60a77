"""Embeds any number of texts, as long as the context, by requests of limited size to llama.cpp.

llama.cpp embeds at most the tokens of one batch. A longer text is embedded in pieces, whose vectors
are averaged, weighted by their tokens. The result is almost the model's own mean over all tokens,
although no piece knows the pieces before it: the cosine was 0.999 for texts of 1,500 tokens. A
batch as long as the context would block other requests (45 s for 4,000 tokens on one core) and need
1.4 GB.

llama.cpp notices a disconnect only after a second without a finished input. It would embed a
thousand short texts to the end, while other requests wait, so they are sent in parts.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from math import ceil, sqrt
from typing import NamedTuple

from serve_app.engines.llamacpp.client import Json, LlamaServer, PromptTooLong, Refusal
from serve_app.engines.llamacpp.prompts.window import ContextWindow

PATH = "/v1/embeddings"
_MAX_INPUTS = 16
_MAX_BYTES = 2048  # about 512 tokens, one batch
_SPECIAL_TOKENS = 2  # around a text, in some models
_NOT_NORMALIZED = -1

EMPTY = "input exceeds maximum context length and cannot be truncated further"
_TOO_LONG = "the input length exceeds the context length"

Input = str | list[int]  # a text, or its tokens
Vector = list[float]


class Embedded(NamedTuple):
    """A vector of length 1 for every text, and the number of tokens in all texts."""

    vectors: list[Vector]
    tokens: int


class Embedder:
    """Embeds texts with `llama`, in batches of `batch_size` tokens."""

    def __init__(self, llama: LlamaServer, window: ContextWindow, batch_size: int) -> None:
        self._llama = llama
        self._window = window
        self._batch_size = batch_size

    async def embed(
        self, texts: Sequence[str], truncate: bool = True, dimensions: int = 0
    ) -> Embedded:
        """Return a vector for every text, cut to its first `dimensions` numbers.

        A text longer than the context is cut at its end or, without `truncate`, refused.
        Raises PromptTooLong, Refusal 400 for an empty text, and the errors of LlamaServer.ask.
        """
        if not all(texts):
            raise Refusal(400, EMPTY)
        truncate = truncate and self._window.shortens
        pieces = [await self._pieces(text, truncate) for text in texts]
        inputs = list(chain.from_iterable(pieces))
        if len(inputs) == len(texts):
            vectors, tokens = await self._vectors(inputs)
        else:
            raw, tokens = await self._vectors(inputs, embd_normalize=_NOT_NORMALIZED)
            vectors = list(map(_normalized, _means(raw, pieces)))
        if 0 < dimensions < len(vectors[0]):
            vectors = [_normalized(vector[:dimensions]) for vector in vectors]
        return Embedded(vectors, tokens)

    async def _pieces(self, text: str, truncate: bool) -> Sequence[Input]:
        """Return a text as it is, or its tokens in pieces that fit into a batch."""
        # Every token has a byte, so that short texts need no count.
        if len(text.encode()) <= self._batch_size - _SPECIAL_TOKENS:
            return [text]
        tokens = await self._tokens(text, truncate)
        size = ceil(len(tokens) / ceil(len(tokens) / self._batch_size))
        return [tokens[at : at + size] for at in range(0, len(tokens), size)]

    async def _tokens(self, text: str, truncate: bool) -> list[int]:
        """Return the tokens of a text, at most the context. Raises PromptTooLong."""
        window = self._window
        data = text.encode()
        start = data[: window.max_bytes]
        tokens = await self._llama.tokenize(start.decode(errors="ignore"))
        if len(tokens) > window.context and not truncate:
            at_least = len(start) < len(data)
            raise PromptTooLong(_TOO_LONG, len(tokens), window.context, at_least)
        return tokens[: window.context]

    async def _vectors(self, inputs: Sequence[Input], **style: int) -> tuple[list[Vector], int]:
        vectors: list[Vector] = []
        tokens = 0
        for part in parts(inputs):
            answer = await self._llama.ask(PATH, {"input": part, **style})
            data: list[Json] = sorted(answer["data"], key=lambda entry: entry["index"])
            vectors += [entry["embedding"] for entry in data]
            tokens += answer["usage"]["prompt_tokens"]
        return vectors, tokens


def parts(inputs: Sequence[Input]) -> Iterator[list[Input]]:
    """Split inputs into requests: a few inputs, or a long one."""
    part: list[Input] = []
    size = 0
    for text_or_tokens in inputs:
        size += _size(text_or_tokens)
        if part and (len(part) == _MAX_INPUTS or size > _MAX_BYTES):
            yield part
            part, size = [], _size(text_or_tokens)
        part.append(text_or_tokens)
    if part:
        yield part


def _size(text_or_tokens: Input) -> int:
    return (
        4 * len(text_or_tokens)
        if isinstance(text_or_tokens, list)
        else len(text_or_tokens.encode())
    )


def _means(vectors: Sequence[Vector], pieces: Sequence[Sequence[Input]]) -> Iterator[Vector]:
    """Yield the mean of every text's vectors, weighted by the tokens of its pieces."""
    rest = iter(vectors)
    for group in pieces:
        group_vectors = list(islice(rest, len(group)))
        weights = list(map(len, group))
        yield group_vectors[0] if len(group_vectors) == 1 else _mean(group_vectors, weights)


def _mean(vectors: Sequence[Vector], weights: Sequence[int]) -> Vector:
    return [
        sum(weight * value for weight, value in zip(weights, column, strict=True)) / sum(weights)
        for column in zip(*vectors, strict=True)
    ]


def _normalized(vector: Vector) -> Vector:
    length = sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]
