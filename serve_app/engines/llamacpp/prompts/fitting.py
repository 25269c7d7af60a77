"""Shortens prompts that are longer than a slot, as Ollama does.

No token is counted before llama.cpp has refused a prompt, because most prompts fit and a count
takes a request. A prompt whose bytes can't fit is clipped before it is sent.
"""

from typing import Any

from serve_app.engines.llamacpp.client import Json, LlamaServer, PromptTooLong
from serve_app.engines.llamacpp.prompts.window import ContextWindow, text_bytes

_KEPT_TOKENS = 4  # Ollama's default of num_keep, for all dialects
_STAYS = ("system", "developer")  # roles whose messages always stay


def cut_length(context: int, keep: int) -> int:
    """Return the tokens of a cut prompt: its first `kept`, and half of the remaining context.

    2048 and 4 give 1026. The other half is left for the answer.
    """
    keep = max(0, min(keep, context - 1))
    return context - max((context - keep) // 2, 1)


def cut(tokens: list[int], context: int, keep: int) -> list[int]:
    """Cut the middle out of `tokens`; the first `kept` and the last ones stay."""
    keep = min(keep if keep >= 0 else len(tokens), context - 1)
    latest = cut_length(context, keep) - keep
    return tokens[:keep] + tokens[len(tokens) - latest :]


def ends(tokens: list[int], context: int) -> list[int]:
    """Return `tokens` without the part of the middle that every cut removes."""
    return tokens if len(tokens) <= 2 * context else tokens[:context] + tokens[-context:]


def can_shorten(request: Json) -> bool:
    """Tell whether `request` has a prompt that can be cut. llama.cpp refuses any other."""
    if "prompt" in request:
        return isinstance(request["prompt"], str)
    messages = request.get("messages")
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(message, dict) for message in messages)
        and text_of(messages[-1]) is not None
        and isinstance(request.get("tools") or [], list)
    )


def text_of(message: Json) -> str | None:
    """Return a message's text, None if a part is not text."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    contents = [part.get("text") if isinstance(part, dict) else None for part in parts]
    texts = [text for text in contents if isinstance(text, str)]
    return "\n".join(texts) if len(texts) == len(parts) else None


def prompt_bytes(request: Json, window: ContextWindow) -> int:
    if "prompt" in request:
        return text_bytes(request["prompt"])
    return window.bytes_of([*request["messages"], *(request.get("tools") or ())])


def clip(request: Json, window: ContextWindow) -> Json:
    """Remove text from `request` whose bytes can't fit; `fit_prompt` does the rest.

    Raises PromptTooLong when the parts that must stay can't fit.
    """
    return (_clip_text if "prompt" in request else _clip_chat)(request, window)


async def fit_prompt(llama: LlamaServer, request: Json, too_long: PromptTooLong) -> Json:
    """Return `request` with a prompt that fits. `too_long`: llama.cpp's refusal of it.

    Raises PromptTooLong when the parts that must stay, such as tools, are too long already.
    """
    return await (_fit_text if "prompt" in request else _fit_chat)(llama, request, too_long)


def _clip_text(request: Json, window: ContextWindow) -> Json:
    """Cut the middle: the first `n_keep` tokens stay, and the last ones that fill a slot."""
    text = request["prompt"].encode()
    keep = _keep(request) if _keep(request) >= 0 else window.context
    head = min((keep + 1) * window.token_bytes, window.max_bytes)
    if len(text) <= head + window.max_bytes:
        return request
    return {**request, "prompt": _text(text[:head] + text[-window.max_bytes :])}


def _clip_chat(request: Json, window: ContextWindow) -> Json:
    """Drop the oldest messages except the system's, then the beginning of the last one."""
    *earlier, last = request["messages"]
    over = prompt_bytes(request, window) - window.max_bytes
    keep = []
    for message in earlier:
        if over > 0 and message.get("role") not in _STAYS:
            over -= window.bytes_of([message])
        else:
            keep.append(message)
    if over > 0:
        frame = {**request, "messages": [*keep, {**last, "content": ""}]}
        window.check(prompt_bytes(frame, window))
        last = {**last, "content": _text((text_of(last) or "").encode()[-window.max_bytes :])}
    return {**request, "messages": [*keep, last]}


def _keep(request: Json) -> int:
    keep: Any = request.get("n_keep")
    return keep if isinstance(keep, int) else _KEPT_TOKENS


def _text(data: bytes) -> str:
    """Decode `data` without the remains of a character that was cut."""
    return data.decode(errors="ignore")


async def _fit_text(llama: LlamaServer, request: Json, too_long: PromptTooLong) -> Json:
    tokens = await llama.tokenize(request["prompt"])
    return {**request, "prompt": cut(tokens, too_long.context, _keep(request))}


async def _fit_chat(llama: LlamaServer, request: Json, too_long: PromptTooLong) -> Json:
    """Drop the oldest messages except the system's; the last one may lose its beginning."""
    shorter = await _longest_fit(llama, request, too_long.context)
    if shorter is None:
        messages = request["messages"]
        last = _without(messages, len(messages) - 1)
        shorter = await _cut_last(llama, {**request, "messages": last}, too_long)
    return {**request, "messages": shorter}


def _without(messages: list[Json], dropped: int) -> list[Json]:
    system = [message for message in messages[:dropped] if message.get("role") in _STAYS]
    return system + messages[dropped:]


async def _longest_fit(llama: LlamaServer, request: Json, context: int) -> list[Json] | None:
    """Find the longest conversation that fits by bisection."""
    messages = request["messages"]
    low, high = 1, len(messages)
    while low < high:
        middle = (low + high) // 2
        if await llama.count({**request, "messages": _without(messages, middle)}) < context:
            high = middle
        else:
            low = middle + 1
    return _without(messages, low) if low < len(messages) else None


async def _cut_last(llama: LlamaServer, request: Json, too_long: PromptTooLong) -> list[Json]:
    *earlier, last = request["messages"]
    frame = await llama.count({**request, "messages": [*earlier, {**last, "content": ""}]})
    latest = cut_length(too_long.context, _keep(request)) - frame
    if latest <= 0:
        raise too_long
    tokens = await llama.tokenize(text_of(last) or "")
    return [*earlier, {**last, "content": await llama.detokenize(tokens[-latest:])}]
