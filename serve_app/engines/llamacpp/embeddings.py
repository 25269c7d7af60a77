"""Embeddings of any number of texts, each as long as the context, asked of llama.cpp in parts.

llama.cpp embeds what one of its batches holds. A longer text is embedded in pieces, and the mean
of them by their tokens taken, which is what the model's own mean over all tokens comes to but for
what a piece sees of the ones before: the cosine of both was 0.999 for texts of 1,500 tokens. A
batch as long as the context would hold up every other request for as long as such a text takes
(45 s for 4,000 tokens on one core), and take 1.4 GB.

It looks for a caller who has left only when no input was finished for a second: a thousand short
ones it embeds to the end, and whoever asks for something else waits. Hence the parts.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from math import ceil, sqrt
from typing import NamedTuple

from serve_app.engines.llamacpp.client import Json, LlamaServer, PromptTooLong, Refusal
from serve_app.engines.llamacpp.prompts.window import Window

PATH = "/v1/embeddings"
_MAX_INPUTS = 16
_MAX_BYTES = 2048  # of text: some 512 tokens, a batch
_SPECIAL_TOKENS = 2  # that a model may put around a text
_AS_THEY_ARE = -1  # vectors that are not normalized

EMPTY = "input exceeds maximum context length and cannot be truncated further"
_TOO_LONG = "the input length exceeds the context length"

Input = str | list[int]  # a text, or its tokens
Vector = list[float]


class Embedded(NamedTuple):
    """A vector of length 1 for each text, and the tokens of all of them."""

    vectors: list[Vector]
    tokens: int


class Embedder:
    """Embeds texts with `llama`, in batches of `batch_size` tokens."""

    def __init__(self, llama: LlamaServer, window: Window, batch_size: int) -> None:
        self._llama = llama
        self._window = window
        self._batch_size = batch_size

    async def embed(
        self, texts: Sequence[str], truncate: bool = True, dimensions: int = 0
    ) -> Embedded:
        """One vector for each text, cut to its first `dimensions` numbers if it has more.

        A text longer than the context is cut at its end, or, without `truncate`, refused.
        Raises PromptTooLong, Refusal 400 for an empty text, and what LlamaServer.ask raises.
        """
        if not all(texts):
            raise Refusal(400, EMPTY)
        truncate = truncate and self._window.shortens
        pieces = [await self._pieces(text, truncate) for text in texts]
        inputs = list(chain.from_iterable(pieces))
        if len(inputs) == len(texts):
            vectors, tokens = await self._vectors(inputs)
        else:
            raw, tokens = await self._vectors(inputs, embd_normalize=_AS_THEY_ARE)
            vectors = list(map(_normalized, _means(raw, pieces)))
        if 0 < dimensions < len(vectors[0]):
            vectors = [_normalized(vector[:dimensions]) for vector in vectors]
        return Embedded(vectors, tokens)

    async def _pieces(self, text: str, truncate: bool) -> Sequence[Input]:
        """What is embedded of a text: itself, or its tokens in pieces that a batch holds."""
        # A token has at least one byte, so that short texts need no counting.
        if len(text.encode()) <= self._batch_size - _SPECIAL_TOKENS:
            return [text]
        tokens = await self._tokens(text, truncate)
        size = ceil(len(tokens) / ceil(len(tokens) / self._batch_size))
        return [tokens[at : at + size] for at in range(0, len(tokens), size)]

    async def _tokens(self, text: str, truncate: bool) -> list[int]:
        """As many as the context holds. Raises PromptTooLong."""
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
    """What to ask of llama.cpp, in turn: a few inputs, or a long one."""
    part: list[Input] = []
    size = 0
    for part_input in inputs:
        size += _size(part_input)
        if part and (len(part) == _MAX_INPUTS or size > _MAX_BYTES):
            yield part
            part, size = [], _size(part_input)
        part.append(part_input)
    if part:
        yield part


def _size(part_input: Input) -> int:
    return 4 * len(part_input) if isinstance(part_input, list) else len(part_input.encode())


def _means(vectors: Sequence[Vector], pieces: Sequence[Sequence[Input]]) -> Iterator[Vector]:
    """The mean of each text's vectors, weighted by the tokens of its pieces."""
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
