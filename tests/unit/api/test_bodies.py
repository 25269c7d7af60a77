"""Bodies: slow uploads by one key hold up no other key."""

import asyncio
import json
from contextlib import suppress

import httpx

from tests.support.service import Service, Simulator, serving
from tests.support.waiting import eventually

CHAT = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}], "stream": False}
KEYS = {"slow": "key-of-slow", "other": "key-of-other"}


def ask(service: Service, name: str) -> "asyncio.Task[httpx.Response]":
    headers = {"authorization": f"Bearer {KEYS[name]}"}
    return asyncio.create_task(service.post("/api/chat", json=CHAT, headers=headers))


async def begin_upload(service: Service, name: str) -> asyncio.StreamWriter:
    """Send the head and the first byte of a request."""
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    writer.write(f"{head}Authorization: Bearer {KEYS[name]}\r\n\r\n{{".encode())
    await writer.drain()
    return writer


async def uploading(service: Service, count: int) -> list[asyncio.StreamWriter]:
    """Begin uploads by `slow`, and return when the service reads them."""
    uploads = [await begin_upload(service, "slow") for _ in range(count)]
    await eventually(lambda: service.noted.running == count)
    return uploads


async def test_slow_uploads_of_one_key_hold_up_no_other(simulator: Simulator) -> None:
    """Two of its bodies are read at once; its third request waits, another key's does not."""
    async with serving(simulator, slots=1, queue=1, api_keys=KEYS) as service:
        uploads = await uploading(service, 5)
        waiting = ask(service, "slow")
        assert (await ask(service, "other")).status_code == 200
        assert not waiting.done()
        assert simulator.reached == {"/api/chat": 1}
        for upload in uploads:
            upload.close()
        assert (await waiting).status_code == 200


async def test_a_turn_to_upload_has_a_bound(simulator: Simulator) -> None:
    """A request that waits as long as a body may take is refused, and reaches no engine."""
    settings = {"slots": 1, "queue": 0, "api_keys": KEYS, "body_timeout_s": 0.3}
    async with serving(simulator, **settings) as service:
        (first,) = await uploading(service, 1)
        second = await begin_upload(service, "slow")
        await eventually(lambda: service.noted.running == 2)
        waiting = ask(service, "slow")  # behind the second one, which is read later than this waits
        await eventually(lambda: service.noted.running == 3)
        first.close()
        refused = await waiting
        assert refused.status_code == 503
        assert "other requests of this key did not arrive within 0.3 s" in refused.text
        assert simulator.reached == {}
        second.close()
        assert (await ask(service, "slow")).status_code == 200


async def test_a_disconnect_before_the_turn_leaves_nothing(simulator: Simulator) -> None:
    """The key may send as many bodies at once as before."""
    async with serving(simulator, slots=1, queue=0, api_keys=KEYS) as service:
        (upload,) = await uploading(service, 1)
        for _ in range(3):
            waiting = ask(service, "slow")
            await eventually(lambda: service.noted.running == 2)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        upload.close()
        answer = await ask(service, "slow")
        assert answer.status_code == 200, json.dumps(answer.json())
