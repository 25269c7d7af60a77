"""The reference client: what it sends, and what it makes of trouble."""

import asyncio
import json
from dataclasses import replace

import pytest

from serve_app.capacity.clients.asyncio_client import AsyncioClient, send_load
from serve_app.capacity.clients.chat import DIALECTS, RequestTarget
from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.workload.load import LoadSpec
from serve_app.capacity.workload.requests import Prompt
from serve_app.engines.process import free_port
from tests.support.service import Simulator
from tests.support.waiting import eventually

QUESTION = Prompt([{"role": "user", "content": "one two three"}], 3, 4)


async def ask(target: RequestTarget, prompt: Prompt = QUESTION) -> Record:
    records: list[Record] = []
    async with AsyncioClient(target, records.append) as client:
        await client.ask(prompt)
    (record,) = records
    return record


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
async def test_it_speaks_every_dialect(dialect: str, stream: bool, target: RequestTarget) -> None:
    """Streamed, each token has its time; whole, there is only the end."""
    record = await ask(replace(target, dialect=dialect, stream=stream))
    assert (record.outcome, record.prompt_tokens, record.output_tokens) == (ClientOutcome.OK, 3, 4)
    assert len(record.gaps) == (3 if stream else 0)
    assert (record.first is not None) == stream


async def test_a_conversation_resends_its_history(paced: Simulator, target: RequestTarget) -> None:
    """With the answers as they came, under one session, each prompt in its turn."""
    spec = LoadSpec(
        shape="constant:level=10,hold=100ms",
        burstiness=0,
        prompt_tokens="5",
        answer_tokens="3",
        turns=3,
    )
    _, records = await send_load(target, spec)
    assert [record.turn for record in records] == [0, 1, 2]
    assert [record.prompt_tokens for record in records] == [5, 5 + 3 + 5, 5 + 3 + 5 + 3 + 5]
    messages = json.loads(paced.stats()["last"]["body"])["messages"]
    assert [message["role"] for message in messages] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert ["x-session-id", records[0].session] in paced.stats()["last"]["headers"]


async def test_users_of_a_closed_load_wait_for_their_answers(
    paced: Simulator, target: RequestTarget
) -> None:
    """There are never more requests in flight than users."""
    spec = LoadSpec(load="closed", shape="constant:level=3,hold=400ms", answer_tokens="5")
    run, records = await send_load(target, spec)
    assert not run.open_model
    assert paced.stats()["max_in_flight"] == 3
    assert len(records) >= 3


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"kind": "refuse", "status": 503}, ClientOutcome.REJECTED),
        ({"kind": "refuse", "status": 500}, ClientOutcome.ERROR),
        ({"kind": "end"}, ClientOutcome.TRUNCATED),
        ({"kind": "cut"}, ClientOutcome.TRUNCATED),
        ({"kind": "silent", "for_s": 5}, ClientOutcome.TIMEOUT),
        ({"kind": "stall", "for_s": 5}, ClientOutcome.TIMEOUT),
    ],
)
async def test_trouble_has_its_outcome(
    fault: dict[str, object], outcome: ClientOutcome, paced: Simulator, target: RequestTarget
) -> None:
    """A stream is whole only by its final marker."""
    paced.fault(**fault)
    assert (await ask(replace(target, timeout_s=0.5))).outcome is outcome


async def test_where_nothing_listens_is_trouble_of_transport() -> None:
    """And not an exception."""
    record = await ask(RequestTarget(f"http://127.0.0.1:{free_port()}"))
    assert (record.outcome, record.status) == (ClientOutcome.TRANSPORT, 0)


async def test_what_is_cancelled_is_recorded(paced: Simulator, target: RequestTarget) -> None:
    """The end of a run must not lose what was in flight."""
    records: list[Record] = []
    paced.fault(kind="silent", for_s=5)
    async with AsyncioClient(target, records.append) as client:
        asking = asyncio.create_task(client.ask(QUESTION))
        await eventually(lambda: paced.reached)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert [record.outcome for record in records] == [ClientOutcome.CANCELLED]
