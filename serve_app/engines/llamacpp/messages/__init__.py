"""Anthropic's Messages API on llama.cpp's chat route."""

from serve_app.engines.llamacpp.messages.request import chat_request
from serve_app.engines.llamacpp.messages.writer import MessageWriter

__all__ = ["MessageWriter", "chat_request"]
