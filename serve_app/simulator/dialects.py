"""Which route speaks which dialect."""

from collections.abc import Callable
from dataclasses import dataclass

from serve_app.simulator import anthropic, ollama, openai, responses
from serve_app.simulator.answer import Answer
from serve_app.simulator.bodies import Body
from serve_app.simulator.generation import Voice
from serve_app.simulator.jobs import Ask


@dataclass(frozen=True, slots=True)
class SimulatedRoute:
    """How a route reads a request and says the answer; `struct` is Go's name of the body."""

    struct: str
    ask: Callable[[Body], Ask]
    voice: Callable[[Ask, Body, Answer], Voice]


DIALECTS = {
    "/api/chat": SimulatedRoute("api.ChatRequest", ollama.ask_chat, ollama.ChatVoice),
    "/api/generate": SimulatedRoute(
        "api.GenerateRequest", ollama.ask_generate, ollama.GenerateVoice
    ),
    "/v1/chat/completions": SimulatedRoute(
        "openai.ChatCompletionRequest", openai.ask_chat, openai.ChatVoice
    ),
    "/v1/completions": SimulatedRoute(
        "openai.CompletionRequest", openai.ask_completion, openai.CompletionVoice
    ),
    "/v1/responses": SimulatedRoute(
        "openai.ResponsesRequest", responses.ask_response, responses.ResponseVoice
    ),
    "/v1/messages": SimulatedRoute(
        "anthropic.MessagesRequest", anthropic.ask_message, anthropic.MessageVoice
    ),
}
