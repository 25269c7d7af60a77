"""Builds a conversation in llama.cpp's terms from the items of another dialect."""

from typing import Any

import orjson

from serve_app.engines.llamacpp.client import Json, Refusal


class ConversationBuilder:
    """Collects `messages`. Successive items of the assistant become one message."""

    def __init__(self) -> None:
        self.messages: list[Json] = []
        self._thoughts: list[str] = []  # of the assistant's next message
        self._names: dict[str, str] = {}  # names of called functions, by the call's id

    def add_text(self, role: str, content: str) -> None:
        if role == "assistant":
            message = self._assistant()
            message["content"] = "\n".join(filter(None, (message["content"], content)))
        else:
            self._append({"role": role, "content": content})

    def add_thoughts(self, thoughts: str) -> None:
        self._thoughts += [thoughts] if thoughts else []

    def add_call(self, call_id: str, name: str, arguments: str) -> None:
        """Add a call. `arguments`: the text of a JSON object."""
        self._names[call_id] = name
        function = {"name": name, "arguments": arguments}
        calls = self._assistant().setdefault("tool_calls", [])
        calls.append({"id": call_id, "type": "function", "function": function})

    def add_result(self, call_id: str, content: str) -> None:
        name = self._names.get(call_id)
        message = {"role": "tool", "content": content, "tool_call_id": call_id}
        self._append(message | ({"name": name} if name else {}))

    def _assistant(self) -> Json:
        """Return the assistant's current message with its thoughts so far."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": ""})
        message = self.messages[-1]
        if self._thoughts:
            before = [message["reasoning_content"]] if "reasoning_content" in message else []
            message["reasoning_content"] = "\n".join([*before, *self._thoughts])
            self._thoughts = []
        return message

    def _append(self, message: Json) -> None:
        self._thoughts = []
        self.messages.append(message)


def arguments(value: Any, name: str) -> str:
    """Return the arguments of a call. Raises Refusal 400 unless they are a JSON object's text."""
    try:
        parsed = orjson.loads(value or "{}")
    except (orjson.JSONDecodeError, TypeError):
        parsed = None
    if not isinstance(parsed, dict):
        raise Refusal(400, f"{name} must be a string that holds a JSON object")
    return value or "{}"
