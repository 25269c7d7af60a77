"""The asyncio load generator, the reference for the others.

Tests, `make bench` and `capacity sweep` use it because it needs no web UI and no worker processes.
It has one process, one thread and no bound on the requests in flight.
"""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp

from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.clients.client_request import ClientRequest, UnixClock, broken_off
from serve_app.capacity.results.request_records import ClientOutcome, Record, Run
from serve_app.capacity.results.validity import judged
from serve_app.capacity.workload.load import AHEAD_S, LoadSpec, Visit, Visits
from serve_app.capacity.workload.requests import Prompt
from serve_app.capacity.workload.shapes import Shape

_POLL_S = 0.05


class AsyncioClient:
    """Sends requests to `target` and passes a record of each to `keep`."""

    def __init__(self, target: RequestTarget, keep: Callable[[Record], object]) -> None:
        self.target = target
        self.clock = UnixClock()
        self._keep = keep

    async def __aenter__(self) -> Self:
        # Servers close idle connections after 5 s or more: close them before that.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**20,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(self, prompt: Prompt, intended: float | None = None) -> ClientRequest:
        """Send one request and wait for its end. `intended`: Unix seconds, by default now.

        A failure is an outcome of the request and is not raised.
        """
        request = ClientRequest(self.target, prompt, intended or self.clock(), self.clock)
        try:
            async with asyncio.timeout(self.target.timeout_s):
                await self._exchange(request)
        except TimeoutError:
            request.fail(ClientOutcome.TIMEOUT, f"no end within {self.target.timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as exc:
            request.fail(broken_off(request.status), f"{type(exc).__name__}: {exc}")
        except asyncio.CancelledError:
            request.fail(ClientOutcome.CANCELLED)
            raise
        finally:
            self._keep(request.record())
        return request

    async def _exchange(self, request: ClientRequest) -> None:
        headers = self.target.headers(request.prompt.session)
        body = request.send()
        async with self._session.post(self.target.url, data=body, headers=headers) as response:
            request.status = response.status
            if request.streamed:
                async for line in response.content:
                    request.line(line)
            else:
                request.body(await response.read())
            request.end()

    async def visit(self, visit: Visit, intended: float | None = None) -> None:
        """Send every turn of a visit. A pause follows each answer."""
        while prompt := visit.next_prompt():
            await self.sleep_until(intended)
            request = await self.ask(prompt, intended)
            if not request.record().ok:
                visit.failed()
                return
            visit.answered(request.answer)
            intended = self.clock() + visit.pause()

    async def sleep_until(self, at: float | None) -> None:
        if at is not None:
            await asyncio.sleep(max(0.0, at - self.clock()))


async def open_load(client: AsyncioClient, spec: LoadSpec) -> None:
    """Send the arrivals of `spec` at their times and wait for the last answer."""
    lengths, start = spec.lengths(), client.clock()
    async with asyncio.TaskGroup() as tasks:
        for number, first in enumerate(spec.arrivals()):
            due = start + first.at_s
            await client.sleep_until(due - AHEAD_S)
            visit = Visit(spec, first, lengths, str(number))
            tasks.create_task(client.visit(visit, due))


async def closed_load(client: AsyncioClient, spec: LoadSpec) -> None:
    """Run as many users as the level of `spec`; each sends, waits, pauses and sends again."""
    shape, lengths, queue = spec.level(), spec.lengths(), spec.queue()
    async with asyncio.TaskGroup() as tasks:
        for number in range(round(shape.peak)):
            visits = Visits(spec, lengths, f"user-{number}", queue)
            tasks.create_task(_user(client, visits, shape, number))


async def _user(client: AsyncioClient, visits: Visits, shape: Shape, number: int) -> None:
    start = client.clock()
    while (now := client.clock() - start) < shape.seconds:
        if round(shape.at(now)) <= number:
            await asyncio.sleep(_POLL_S)
            continue
        visit = visits.next()
        await client.visit(visit)
        await asyncio.sleep(visit.pause())


async def send_load(
    target: RequestTarget, spec: LoadSpec, keep: Callable[[Record], object] = lambda _: None
) -> tuple[Run, list[Record]]:
    """Send the load of `spec`. `keep` gets each record as soon as its request ends."""
    records: list[Record] = []

    def note(record: Record) -> None:
        records.append(record)
        keep(record)

    busy, clock = time.process_time(), UnixClock()
    began = clock()
    async with AsyncioClient(target, note) as client:
        await (open_load if spec.is_open else closed_load)(client, spec)
    ended = clock()
    run = Run(
        tool="reference",
        base_url=target.base_url,
        began=began,
        ended=ended,
        options=spec.options(),
        open_model=spec.is_open,
        cpu_share=(time.process_time() - busy) / (ended - began),
        timeout_s=target.timeout_s,
    )
    return judged(run, records), records
