"""Prompts longer than a slot, shortened as Ollama shortens them.

Nothing is counted before llama.cpp has refused a prompt: most fit, and counting takes a request.
"""

from typing import Any

from serve_app.engines.llamacpp.client import Json, LlamaServer, PromptTooLong


def room(context: int, kept: int) -> int:
    """Tokens of a cut prompt: after its first `kept`, half of what the context holds.

    2048 and 4 give 1026. The other half is left to the answer.
    """
    kept = max(0, min(kept, context - 1))
    return context - max((context - kept) // 2, 1)


def cut(tokens: list[int], context: int, kept: int) -> list[int]:
    """`tokens` without enough of their middle: the first `kept` and the latest stay."""
    kept = min(kept if kept >= 0 else len(tokens), context - 1)
    latest = room(context, kept) - kept
    return tokens[:kept] + tokens[len(tokens) - latest :]


async def fit_text(llama: LlamaServer, request: Json, too_long: PromptTooLong) -> Json:
    """A /completion request whose prompt fits."""
    prompt: Any = request["prompt"]
    tokens = await llama.tokenize(prompt) if isinstance(prompt, str) else prompt
    return {**request, "prompt": cut(tokens, too_long.context, request["n_keep"])}


async def fit_chat(llama: LlamaServer, request: Json, too_long: PromptTooLong) -> Json:
    """A chat request that fits: without its oldest messages but for the system's.

    If even the last message is too long, its beginning goes. Raises PromptTooLong when what must
    stay, say the tools, is too long already.
    """
    messages = request["messages"]
    fewer = [_without(messages, dropped) for dropped in range(1, len(messages))]
    shorter = await _longest_fit(llama, request, fewer, too_long.context)
    if shorter is None:
        last = fewer[-1] if fewer else messages
        shorter = await _cut_last(llama, {**request, "messages": last}, too_long)
    return {**request, "messages": shorter}


def _without(messages: list[Json], dropped: int) -> list[Json]:
    system = [message for message in messages[:dropped] if message["role"] == "system"]
    return system + messages[dropped:]


async def _longest_fit(
    llama: LlamaServer, request: Json, fewer: list[list[Json]], context: int
) -> list[Json] | None:
    """The first of ever shorter conversations that fits, found by halving."""
    low, high = 0, len(fewer)
    while low < high:
        middle = (low + high) // 2
        if await llama.count({**request, "messages": fewer[middle]}) < context:
            high = middle
        else:
            low = middle + 1
    return fewer[low] if low < len(fewer) else None


async def _cut_last(llama: LlamaServer, request: Json, too_long: PromptTooLong) -> list[Json]:
    *others, last = request["messages"]
    frame = await llama.count({**request, "messages": [*others, {**last, "content": ""}]})
    latest = room(too_long.context, request["n_keep"]) - frame
    if latest <= 0:
        raise too_long
    tokens = await llama.tokenize(last["content"])
    return [*others, {**last, "content": await llama.detokenize(tokens[-latest:])}]
