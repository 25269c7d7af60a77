"""The routes that generate, with the dialect of each."""

from collections.abc import Callable
from dataclasses import dataclass

from serve_app.simulator import anthropic, ollama, openai, responses
from serve_app.simulator.bodies import Body
from serve_app.simulator.generation import DialectWriter
from serve_app.simulator.model_output import ModelOutput
from serve_app.simulator.tasks import GenerationRequest


@dataclass(frozen=True, slots=True)
class GenerationRoute:
    """A route's parser of requests and writer of answers."""

    parse: Callable[[Body], GenerationRequest]
    writer: Callable[[GenerationRequest, Body, ModelOutput], DialectWriter]


GENERATION_ROUTES = {
    "/api/chat": GenerationRoute(ollama.parse_chat, ollama.OllamaChatWriter),
    "/api/generate": GenerationRoute(ollama.parse_generate, ollama.GenerateWriter),
    "/v1/chat/completions": GenerationRoute(openai.parse_chat, openai.OpenAIChatWriter),
    "/v1/completions": GenerationRoute(openai.parse_completion, openai.CompletionWriter),
    "/v1/responses": GenerationRoute(responses.parse_response, responses.OpenAIResponseWriter),
    "/v1/messages": GenerationRoute(anthropic.parse_message, anthropic.AnthropicMessageWriter),
}
