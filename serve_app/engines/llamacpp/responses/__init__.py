"""OpenAI's Responses API on llama.cpp's chat route. No state is kept."""

from serve_app.engines.llamacpp.responses.request import chat_request
from serve_app.engines.llamacpp.responses.writer import ResponseWriter

__all__ = ["ResponseWriter", "chat_request"]
