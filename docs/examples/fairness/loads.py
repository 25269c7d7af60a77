"""The loads of the example: their senders, and the records of every request."""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass

from serve_app.capacity.clients.asyncio_client import AsyncioClient
from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.results.request_records import Record
from serve_app.capacity.workload.prompts import random_words
from serve_app.capacity.workload.requests import Prompt

PROMPT_TOKENS, ANSWER_TOKENS = 400, 32
# A refused client repeats its request after this time and ignores Retry-After, as a flood does.
_AGAIN_S = 0.2


@dataclass(frozen=True)
class Sender:
    """One key with its load: `clients` that wait for their answers, or `per_s` Poisson arrivals.

    `key`: the key that it sends, where that is another one's. `pause_s`: between two requests of a
    client.
    """

    name: str
    clients: int = 0
    per_s: float = 0.0
    key: str = ""
    priority: str = ""
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PriorityTarget(RequestTarget):
    """Asks for a priority by the header."""

    priority: str = ""

    def headers(self, session: str = "") -> dict[str, str]:
        # The two-argument form: a dataclass with slots is another class than the one written here.
        headers = RequestTarget.headers(self, session)
        return headers | ({"x-priority": self.priority} if self.priority else {})


async def run(
    url: str, senders: Iterable[Sender], keys: dict[str, str], seconds: float
) -> dict[str, list[Record]]:
    """Send the loads side by side for `seconds`; return the records of each sender by its name."""
    records: dict[str, list[Record]] = {sender.name: [] for sender in senders}
    async with asyncio.TaskGroup() as tasks:
        for sender in senders:
            key = keys[sender.key or sender.name]
            target = PriorityTarget(url, api_key=key, priority=sender.priority)
            keep = records[sender.name].append
            tasks.create_task(_send(AsyncioClient(target, keep), sender, seconds))
    return records


async def _send(client: AsyncioClient, sender: Sender, seconds: float) -> None:
    async with client, asyncio.TaskGroup() as tasks:
        end = client.clock() + seconds
        for number in range(sender.clients):
            tasks.create_task(_client(client, sender, number, end))
        rng, due = random.Random(f"{sender.name} arrivals"), client.clock()
        while sender.per_s and (due := due + rng.expovariate(sender.per_s)) < end:
            await client.sleep_until(due)
            tasks.create_task(client.ask(_prompt(f"{sender.name} {due}"), due))


async def _client(client: AsyncioClient, sender: Sender, number: int, end: float) -> None:
    count = 0
    while client.clock() < end:
        count += 1
        request = await client.ask(_prompt(f"{sender.name} {number} {count}"))
        await asyncio.sleep(sender.pause_s if request.record().ok else _AGAIN_S)


def _prompt(seed: str) -> Prompt:
    content = random_words(PROMPT_TOKENS, seed)
    return Prompt([{"role": "user", "content": content}], PROMPT_TOKENS, ANSWER_TOKENS)
