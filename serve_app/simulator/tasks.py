"""Requests of all dialects in one form, and the tasks for the engine that they become."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from serve_app.simulator.catalogue import Catalogue, Model, is_valid, parse_keep_alive
from serve_app.simulator.failures import ErrorAnswer
from serve_app.simulator.model_output import (
    ModelOutput,
    Token,
    TokenKind,
    Tool,
    ToolCall,
    engine_error,
    example,
    generate_words,
    json_tokens,
    thinking_tokens,
    truncate,
)
from serve_app.simulator.settings import SimulatorSettings


@dataclass(slots=True)
class PromptMessage:
    """A message of a conversation, as words."""

    role: str
    words: list[str]


@dataclass(slots=True)
class GenerationRequest:
    """A parsed request. Without `messages` it loads the model, or unloads it if keep_alive is 0.

    `limit` 0: no limit.
    """

    model: str
    messages: list[PromptMessage]
    stream: bool
    chat: bool = True
    limit: int = 0
    stops: Sequence[str] = ()
    format: Any = None
    tools: Sequence[Tool] = ()
    tool_result: bool = False  # the last message is the result of a tool call
    think: bool | None = None  # None: if the model can
    think_or_drop: bool = False  # ignore `think` for a model that can't, instead of an error
    insert: bool = False
    truncate: bool = True
    keep_alive: object = None
    top_logprobs: int | None = None  # None: no logprobs


@dataclass(slots=True)
class GenerationTask:
    """A generation for the engine."""

    model: Model
    words: list[str]
    output: ModelOutput
    stream: bool
    keep_alive_s: float | None


@dataclass(slots=True)
class GenerationStats:
    """Counts and durations of a task, in nanoseconds. Values of 0 are left out, as in Go."""

    reason: str | None = None  # None: the answer is unfinished
    total_ns: int = 0
    load_ns: int = 0
    prompt_count: int = 0
    prompt_ns: int = 0
    eval_count: int = 0
    eval_ns: int = 0

    def counts(self) -> Mapping[str, int]:
        counts = {
            "total_duration": self.total_ns,
            "load_duration": self.load_ns,
            "prompt_eval_count": self.prompt_count,
            "prompt_eval_duration": self.prompt_ns,
            "eval_count": self.eval_count,
            "eval_duration": self.eval_ns,
        }
        return {name: count for name, count in counts.items() if count}


@dataclass(slots=True)
class TaskBuilder:
    """Turns a GenerationRequest into a GenerationTask, or refuses it as Ollama does."""

    settings: SimulatorSettings
    catalogue: Catalogue
    calls: int = field(default=0)

    def build(self, request: GenerationRequest) -> GenerationTask:
        model = self.model(request)
        keep_alive_s = parse_keep_alive(request.keep_alive)
        if not request.messages and keep_alive_s == 0:
            return GenerationTask(
                model, [], ModelOutput((), "unload"), request.stream, keep_alive_s
            )
        self._check_abilities(request, model)
        if not request.messages:
            return GenerationTask(model, [], ModelOutput((), "load"), request.stream, keep_alive_s)
        _check_format(request.format)
        words = self._fit(request)
        return GenerationTask(
            model, words, self._answer(request, model, words), request.stream, keep_alive_s
        )

    def model(self, request: GenerationRequest) -> Model:
        if request.chat and not request.model:
            raise ErrorAnswer(400, "model is required")
        if request.chat and not is_valid(request.model):
            raise ErrorAnswer(400, "invalid model name")
        model = self.catalogue.find(request.model)
        if model is None:
            raise ErrorAnswer(404, f"model '{request.model}' not found")
        return model

    def _check_abilities(self, request: GenerationRequest, model: Model) -> None:
        if not model.chats:
            raise ErrorAnswer(400, f'"{request.model}" does not support {_verb(request)}')
        if request.insert:
            raise ErrorAnswer(400, f"{model.full_name} does not support insert")
        if request.tools and "tools" not in model.abilities:
            raise ErrorAnswer(400, f"{model.full_name} does not support tools")
        if request.think and not request.think_or_drop and "thinking" not in model.abilities:
            raise ErrorAnswer(400, f'"{request.model}" does not support thinking')

    def _fit(self, request: GenerationRequest) -> list[str]:
        """Fit the prompt into the context: drop old messages, then half of the rest."""
        context = self.settings.context_length
        messages = [message.words for message in request.messages]
        count = sum(map(len, messages))
        if count > context and not request.truncate:
            raise engine_error(
                f"request ({count} tokens) exceeds the available context size "
                f"({context} tokens), try increasing it",
                "exceed_context_size_error",
                n_prompt_tokens=count,
                n_ctx=context,
            )
        oldest = 1 if request.messages[0].role == "system" else 0
        while sum(map(len, messages)) > context and len(messages) > oldest + 1:
            del messages[oldest]
        words = [word for message in messages for word in message] or [""]
        return words if len(words) <= context else words[-(context // 2 + 2) :]

    def _answer(self, request: GenerationRequest, model: Model, words: list[str]) -> ModelOutput:
        if request.tools and not request.tool_result:
            return self._call(request.tools[0])
        text = [Token(TokenKind.TEXT, token) for token in self._text(request, words)]
        # With tools the model does not think.
        thinks = "thinking" in model.abilities and request.think is not False and not request.tools
        tokens, reason = truncate(
            (thinking_tokens() if thinks else []) + text, request.limit, request.stops
        )
        return ModelOutput(tokens, reason)

    def _text(self, request: GenerationRequest, words: list[str]) -> list[str]:
        if request.format:
            return json_tokens(example({} if request.format == "json" else request.format))
        # One token more than the limit, so that `truncate` sees that the limit cuts.
        count = request.limit + 1 if request.limit else self.settings.answer_tokens
        return generate_words(
            words, max(1, min(count, self.settings.answer_tokens)), self.settings.seed
        )

    def _call(self, tool: Tool) -> ModelOutput:
        self.calls += 1
        call = ToolCall(f"call_{self.calls:08d}", tool.name, example(tool.parameters))
        return ModelOutput([Token(TokenKind.CALL, "")], "stop", call)


def _verb(request: GenerationRequest) -> str:
    return "chat" if request.chat else "generate"


def _check_format(format_: Any) -> None:
    if not format_ or format_ == "json" or isinstance(format_, dict):
        return
    shown = orjson.dumps(orjson.dumps(format_).decode()).decode()
    message = f'invalid format: {shown}; expected "json" or a valid JSON Schema object'
    raise ErrorAnswer(500, message, late=True)
