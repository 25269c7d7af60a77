"""The spans and events below a request's own: where its time went."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from serve_app.settings import Settings
from serve_app.tracing.context import TraceContext
from serve_app.tracing.notes import SpanNotes
from tests.support.in_process import simulated
from tests.support.otlp import Collector, sender
from tests.support.service import Service, Simulator, serving, started
from tests.support.traced import HELLO, MODEL, chat, root
from tests.support.waiting import eventually


async def in_two(body: bytes, sent: list[float]) -> AsyncIterator[bytes]:
    """Send the last byte a moment later, and note when."""
    yield body[:-1]
    await asyncio.sleep(0.01)
    sent.append(time.time())
    yield body[-1:]


async def test_children_tell_where_the_time_went(traced: Service, received: Collector) -> None:
    """Reading, prefill and decode, one after the other within the request."""
    body = b'{"model": "smollm2:135m", "messages": [{"role": "user", "content": "x"}], '
    body += b'"stream": true, "max_tokens": 20}'
    length = {"content-length": str(len(body))}
    sent: list[float] = []
    await traced.post("/v1/chat/completions", content=in_two(body, sent), headers=length)
    span = await root(received)
    children = [received.named(name)[0] for name in ("read body", "prefill", "decode")]
    times = [time for child in children for time in (child.began, child.ended)]
    assert [span.began, *times, span.ended] == sorted([span.began, *times, span.ended])
    assert {child.parent_id for child in children} == {span.span_id}
    assert {child.trace_id for child in children} == {span.trace_id}
    assert children[0].ended >= sent[0]


async def test_an_answer_in_one_piece_is_split_by_the_engines_times(
    traced: Service, received: Collector
) -> None:
    """Ollama reports how long it has read and generated."""
    body = {"model": MODEL, "messages": HELLO, "stream": False, "options": {"num_predict": 20}}
    answer = (await traced.post("/api/chat", json=body)).json()
    await root(received)
    (decode,) = received.named("decode")
    assert decode.ended - decode.began == pytest.approx(answer["eval_duration"] / 1e9, abs=1e-6)
    assert received.named("generate")


async def test_waiting_in_the_queue_is_a_child(
    traced: Service, simulator: Simulator, received: Collector
) -> None:
    """With the priority, and the calls that waited before it."""
    simulator.fault(kind="stall", after_tokens=1, for_s=30, times=4)
    tasks = [asyncio.create_task(chat(traced, stream=True)) for _ in range(4)]
    await eventually(lambda: simulator.stats()["in_flight"] == 4)
    for number in (1, 2):
        headers = {"x-priority": "batch"} if number == 2 else {}
        tasks.append(asyncio.create_task(chat(traced, headers)))
        await eventually(lambda number=number: waiting(traced) == number)
    for task in tasks[:4]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await eventually(lambda: len(received.roots) == len(tasks))
    waits = [span.attributes for span in received.named("queue")]
    assert {"serve_app.queue.position": 1, "serve_app.priority": "batch"} in waits
    assert {"serve_app.queue.position": 0, "serve_app.priority": "standard"} in waits


async def test_the_load_of_a_model_is_a_child(received: Collector) -> None:
    """Of the request that has waited for it."""
    options = ("--models", "a,b", "--load-s", "0.02", "--max-loaded-models", "1")
    async with simulated(*options) as engine:
        settings = {"kind": "attach", "url": engine.url, "max_loaded_models": 1, "min_loaded_s": 0}
        built = Settings.model_validate({"models": "a,b", "engine": settings})
        async with started(built, sender=sender(received.http)) as service:
            await chat(service, model="a")
            await chat(service, model="b")
    (load,) = received.named("load model")
    assert load.attributes == {"serve_app.model": "b:latest"}
    assert load.ended - load.began >= 0.02
    (second,) = received.named("chat b:latest")
    assert load.parent_id == second.span_id


async def test_the_next_model_of_an_alias_is_an_event(
    simulator: Simulator, received: Collector
) -> None:
    """With the failure of the model before it, and the model that answered."""
    aliases = {"any": [MODEL, "other"]}
    to = sender(received.http)
    async with serving(simulator, sender=to, slots=1, aliases=aliases, alias_wait_s=0) as service:
        simulator.fault(kind="stall", after_tokens=1, for_s=30)
        stalled = asyncio.create_task(chat(service, stream=True))
        await eventually(lambda: simulator.stats()["in_flight"] == 1)
        asking = asyncio.create_task(chat(service, model="any"))
        await eventually(lambda: waiting(service) == 1)
        stalled.cancel()
        assert (await asking).json()["model"] == "other:latest"
    (span,) = received.named("chat any")
    assert span.events == {"next model": {"error.type": "DeadlineExceeded"}}
    assert span.attributes["gen_ai.response.model"] == "other:latest"


def waiting(service: Service) -> int:
    return sum(service.admission.waiting_by_flow().values())


def test_notes_of_one_request_have_a_bound() -> None:
    """However often it is tried again."""
    notes = SpanNotes(TraceContext(1, 1, True))
    for _ in range(1000):
        notes.wait("batch", 0)
        notes.event("retry")
    notes.end()
    assert len(notes.steps) == len(notes.events) == 64
