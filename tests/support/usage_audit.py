"""Compares the use that a service has recorded with its engines' own counts.

Every request has a separate key, which is also the first word of its prompt. So `/admin/usage` has
one record for each request, and the engines' journal has its name.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from serve_app.capacity.clients.asyncio_client import AsyncioClient
from serve_app.capacity.clients.chat import Messages, RequestTarget
from serve_app.capacity.results.request_records import Record
from serve_app.capacity.workload.requests import Prompt
from tests.support.ollama_simulator.journal import Attempt

ADMIN = "sk-admin"
_DIALECTS = ("openai", "ollama", "anthropic")
_MAX_TOKENS = 40
_MAX_REPEATS = 20
# Events of a stream that carry no token: the head of a message, and the end of its text.
_FRAMES = 4
# The maximum by which the estimates of all prompts together may miss the engines' counts.
_PROMPTS = 0.05


def name(number: int) -> str:
    return f"r{number}"


def write_keys(path: Path, requests: int) -> None:
    lines = [f"{name(number)}: sk-{name(number)}\n" for number in range(requests)]
    path.write_text(f"admin: {{key: {ADMIN}, admin: true}}\n" + "".join(lines))


@dataclass(frozen=True, slots=True)
class _Target(RequestTarget):
    """A target that does not ask OpenAI's streams for counts."""

    def body(self, messages: Messages, tokens: int) -> bytes:
        body = orjson.loads(RequestTarget.body(self, messages, tokens))
        body.pop("stream_options", None)
        return orjson.dumps(body)


async def send(
    url: str,
    requests: int,
    users: int,
    rng: random.Random,
    on_sent: Callable[[], object] = lambda: None,
) -> Mapping[str, Record]:
    """Send requests in all dialects, of which a fifth is disconnected; return a record of each."""
    records: dict[str, Record] = {}
    numbers = iter(range(requests))
    async with asyncio.TaskGroup() as group:
        for _ in range(users):
            group.create_task(_user(url, numbers, rng, records, on_sent))
    return records


async def _user(
    url: str,
    numbers: Iterable[int],
    rng: random.Random,
    records: dict[str, Record],
    on_sent: Callable[[], object],
) -> None:
    for number in numbers:
        own = name(number)
        target = rng.choice((RequestTarget, _Target))(
            url, dialect=rng.choice(_DIALECTS), stream=rng.random() < 0.7, api_key=f"sk-{own}"
        )
        text = f"{own} " + "tell me of a river " * rng.randint(1, _MAX_REPEATS)
        prompt = Prompt([{"role": "user", "content": text}], 0, rng.randint(1, _MAX_TOKENS))
        kept: list[Record] = []
        async with AsyncioClient(target, kept.append) as client:
            asking = asyncio.create_task(client.ask(prompt))
            if rng.random() < 0.2:
                await asyncio.wait({asking}, timeout=rng.random() * 0.3)
                asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
        if kept:  # otherwise it was cancelled before it began
            records[own] = kept[0]
        on_sent()


async def used(url: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the use recorded by the service, by request. Raises aiohttp.ClientError."""
    headers = {"authorization": f"Bearer {ADMIN}"}
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        page = await (await http.get(f"{url}/admin/usage", headers=headers)).json()
    return {record["key"]: record for record in page["data"]}


async def settled(read: Callable[[], Awaitable[Any]], pause_s: float = 0.1) -> Any:
    """Return the value of `read` as soon as two calls in a row return the same."""
    before, now = None, await read()
    while before != now:
        await asyncio.sleep(pause_s)
        before, now = now, await read()
    return now


@dataclass
class Audit:
    """Sums of a comparison, and a sentence for each difference.

    `unrecorded`: requests without a record that engines have worked on.
    """

    whole: int = 0
    estimated: int = 0
    unrecorded: int = 0
    without_engine: int = 0  # estimated prompts, sent to an engine that has not begun with them
    missed_events: int = 0  # tokens generated but not passed on
    estimated_prompts: int = 0
    real_prompts: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def prompt_error(self) -> float:
        return self.estimated_prompts / max(1, self.real_prompts) - 1


def audit(
    records: Mapping[str, Record],
    use: Mapping[str, Mapping[str, Any]],
    attempts: Mapping[str, list[Attempt]],
) -> Audit:
    """Compare: exactly for whole answers, within the events under way for others."""
    result = Audit()
    for own, record in records.items():
        _compare(own, record, use.get(own), attempts.get(own, []), result)
    if result.estimated > 100 and abs(result.prompt_error) > _PROMPTS:
        result.problems.append(f"prompts are estimated {result.prompt_error:+.1%} off")
    return result


def _compare(
    own: str,
    record: Record,
    use: Mapping[str, Any] | None,
    attempts: list[Attempt],
    result: Audit,
) -> None:
    shown = f"{own}: {record.dialect} {record.outcome}, {use}, {attempts}"
    if use is None:
        result.unrecorded += bool(attempts)
        if record.ok and not attempts:
            result.problems.append(f"{shown}: answered without an engine")
    elif use["requests"] != 1:
        result.problems.append(f"{shown}: counted {use['requests']} times")
    elif use["estimated_requests"]:
        _compare_estimate(shown, record, use, attempts, result)
    else:
        result.whole += 1
        counts = (use["prompt_tokens"], use["generated_tokens"])
        if counts not in [(one.prompt, one.generated) for one in attempts if one.whole]:
            result.problems.append(f"{shown}: not what an engine has counted")


def _compare_estimate(
    shown: str,
    record: Record,
    use: Mapping[str, Any],
    attempts: list[Attempt],
    result: Audit,
) -> None:
    """Check that an estimate lies between the client's events and the engine's tokens."""
    if not attempts:  # it was closed, or killed, before it had read the request
        result.without_engine += 1
        if use["generated_tokens"]:
            result.problems.append(f"{shown}: tokens without an engine")
        return
    result.estimated += 1
    result.estimated_prompts += use["prompt_tokens"]
    result.real_prompts += attempts[-1].prompt
    received = len(record.gaps) + (record.first is not None)
    generated = max(one.generated for one in attempts)
    counted = use["generated_tokens"]
    result.missed_events += max(0, generated - counted)
    if record.ok:
        result.problems.append(f"{shown}: a whole answer was estimated")
    elif not received <= counted <= generated + _FRAMES:
        result.problems.append(f"{shown}: the client has received {received} events")
