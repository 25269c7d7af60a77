"""Viewers of the page in a process of their own, as many connections, which poll as it does.

`python -m tests.bench.viewer_client URL NUMBER` polls until its standard input ends, and prints its
results as one JSON object.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from time import perf_counter
from urllib.parse import urlsplit

from serve_app.capacity.results.statistics import quantile

VIEWERS = 50
_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Views:
    """Polls by status, those that failed, and how long answers took."""

    statuses: dict[str, int]
    broken: int
    p50_ms: float
    p99_ms: float

    @property
    def refused(self) -> int:
        """The polls that got neither the document nor 304."""
        return self.broken + sum(n for s, n in self.statuses.items() if s not in ("200", "304"))

    def __str__(self) -> str:
        statuses = ", ".join(f"{n} x {status}" for status, n in sorted(self.statuses.items()))
        return (
            f"polls: {statuses or 'none'}, {self.broken} broken, "
            f"p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"
        )


class Watching:
    """A running process of viewers."""

    def __init__(self, process: "subprocess.Popen[str] | None") -> None:
        self._process = process

    def stop(self) -> Views:
        """Stop the viewers; return their results."""
        if self._process is None:
            return Views({}, 0, 0.0, 0.0)
        out, _ = self._process.communicate("")
        return Views(**json.loads(out))


@contextmanager
def viewers(url: str, number: int = VIEWERS) -> Iterator[Watching]:
    """Let `number` viewers poll until they are stopped, at the latest at the end of the block."""
    if not number:
        yield Watching(None)
        return
    command = [sys.executable, "-m", "tests.bench.viewer_client", url, str(number)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Watching(process)
    finally:
        process.kill()
        process.wait()


@dataclass(slots=True)
class _Counts:
    statuses: dict[str, int] = field(default_factory=dict)
    broken: int = 0
    seconds: list[float] = field(default_factory=list)

    def views(self) -> Views:
        p50, p99 = (1000 * quantile(self.seconds or [0.0], q) for q in (0.5, 0.99))
        return Views(self.statuses, self.broken, p50, p99)


async def _view(url: str, delay_s: float, counts: _Counts) -> None:
    await asyncio.sleep(delay_s)
    while True:
        try:
            await _poll(url, counts)
        except (OSError, asyncio.IncompleteReadError):
            counts.broken += 1
            await asyncio.sleep(_EVERY_S)


async def _poll(url: str, counts: _Counts) -> None:
    """Poll over one connection until the service closes it."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    etag = b""
    try:
        while True:
            began = perf_counter()
            writer.write(
                b"GET /admin/fleet HTTP/1.1\r\nHost: %b\r\n%b\r\n"
                % (place.netloc.encode(), etag and b"If-None-Match: %b\r\n" % etag)
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields.get(b"content-length", b"0")))
            counts.seconds.append(perf_counter() - began)
            status = head.split(b" ", 2)[1].decode()
            counts.statuses[status] = counts.statuses.get(status, 0) + 1
            etag = fields.get(b"etag", etag)
            if fields.get(b"connection") == b"close":
                return
            await asyncio.sleep(max(_EVERY_S, float(fields.get(b"poll-after", 0))))
    finally:
        writer.close()


async def _main(url: str, number: int) -> Views:
    counts = _Counts()
    tasks = [asyncio.create_task(_view(url, i * _EVERY_S / number, counts)) for i in range(number)]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    return counts.views()


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(_main(sys.argv[1], int(sys.argv[2]))))))
