"""Requests that offer another protocol, as clients send them, on a plain connection."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

# The headers of the JDK's HttpClient in every request to `http://`, and those of a WebSocket.
OFFERS = {
    "h2c": (
        "Connection: Upgrade, HTTP2-Settings\r\n"
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
        "Upgrade: h2c\r\n"
    ),
    "websocket": (
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    ),
}
_LAST = b"GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def offering(offer: str, method: str, path: str, body: Any = None) -> tuple[bytes, bytes]:
    """Return the head and the body of a request with an offer."""
    content = b"" if body is None else json.dumps(body).encode()
    length = "" if body is None else f"Content-Length: {len(content)}\r\n"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{OFFERS[offer]}{length}\r\n"
    return head.encode(), content


async def ask(url: str, *packets: bytes) -> list[tuple[int, bytes]]:
    """Send a request in pieces; return the status and the body of each answer to it.

    Repeats the request for a while if the proxy reloads under the connection, and answers the last
    request with 5xx or closes the connection before it.
    """
    for _ in range(30):
        *answers, (status, _) = await ask_once(url, *packets)
        if status < 500 and answers:
            break
        await asyncio.sleep(0.2)
    assert status == 404, (status, answers)
    return answers


async def ask_once(url: str, *packets: bytes) -> list[tuple[int, bytes]]:
    """Send a request in pieces, and a last one; return the status and the body of each answer."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    for packet in filter(None, packets):
        writer.write(packet)
        await asyncio.sleep(0.05)  # so that the next one travels in a separate packet
    writer.write(_LAST)  # its answer ends the connection, so nothing follows
    async with asyncio.timeout(20):
        answers = _answers(await reader.read())
    writer.close()
    return answers


def _answers(data: bytes) -> list[tuple[int, bytes]]:
    answers = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        lengths = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
        (length,) = lengths or [0]
        answers.append((int(lines[0].split()[1]), data[:length]))
        data = data[length:]
    return answers
