"""The expected tokens of a request, learned from engines' counts of earlier ones."""

from dataclasses import dataclass

# Initial values: English has about four bytes a token, and answers are short.
_BYTES, _TOKENS = 8000.0, 2000.0
_ANSWER_TOKENS = 256.0
_MEMORY = 0.98  # the weight of earlier prompts against a new one
_MIN_STEP = 0.05  # the weight of a new answer against those before it
_MAX_KNOWN = 20_000


@dataclass(slots=True)
class _Ratio:
    """Tokens per byte of a model's prompts; recent prompts count most."""

    bytes: float = _BYTES
    tokens: float = _TOKENS

    def tokens_of(self, size: int) -> float:
        return size * self.tokens / self.bytes

    def learn(self, size: int, tokens: int) -> None:
        self.bytes = self.bytes * _MEMORY + size
        self.tokens = self.tokens * _MEMORY + tokens


@dataclass(slots=True)
class _Answers:
    """The usual length of answers: their mean and mean deviation."""

    mean: float
    deviation: float = 0.0
    number: int = 0

    @property
    def typical(self) -> float:
        return self.mean + self.deviation

    def learn(self, tokens: int) -> None:
        self.number += 1
        if self.number == 1:
            self.mean = tokens
        step = max(_MIN_STEP, 1 / self.number)
        error = tokens - self.mean
        self.mean += step * error
        self.deviation += step * (abs(error) - self.deviation)


class Estimator:
    """Estimates tokens of prompts by model, and tokens of answers by key and model."""

    def __init__(self) -> None:
        self._ratios: dict[str, _Ratio] = {}
        self._answers: dict[tuple[str, str], _Answers] = {}

    def prompt(self, model: str, size: int) -> float:
        """Return the expected tokens of a prompt of `size` bytes."""
        ratio = self._ratios.get(model)
        return (ratio or _Ratio()).tokens_of(size)

    def answer(self, key: str, model: str, max_tokens: int) -> float:
        """Return the expected tokens of an answer of at most `max_tokens`."""
        known = self._answers.get((key, model)) or self._answers.get(("", model))
        return min(max_tokens, known.typical if known else _ANSWER_TOKENS)

    def learn_prompt(self, model: str, size: int, tokens: int) -> None:
        self._ratios.setdefault(model, _Ratio()).learn(size, tokens)

    def learn_answer(self, key: str, model: str, tokens: int) -> None:
        for name in {key, ""}:
            self._of(name, model).learn(tokens)

    def _of(self, key: str, model: str) -> _Answers:
        known = self._answers.get((key, model))
        if known is None:
            if len(self._answers) >= _MAX_KNOWN:
                del self._answers[next(iter(self._answers))]
            known = self._answers[key, model] = _Answers(0.0)
        return known
