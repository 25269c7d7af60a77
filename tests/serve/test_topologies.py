"""Both topologies behind Serve's own proxy or HAProxy, before a simulated engine that counts."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import ray

from tests.support.otlp import Collector, collector
from tests.support.scraping import not_exported
from tests.support.service import Simulator, start_simulator
from tests.support.waiting import eventually

MESSAGES = [{"role": "user", "content": "tell me more"}]
CHAT = {"model": "smollm2:135m", "messages": MESSAGES, "max_tokens": 8}


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    simulator = start_simulator("--decode-tokens-per-s", "200", "--slots", "2")
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module", params=["direct", "gateway"])
def topology(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def received() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def url(topology: str, deploy, shared: Simulator, received: Collector) -> str:
    return deploy(
        topology=topology,
        models="smollm2:135m,other",
        engine={"kind": "attach", "url": shared.url, "slots": 2},
        queue=2,
        max_body_mib=1,
        log_format="json",
        tracing={"endpoint": received.http, "metrics": True},
    )


@pytest.fixture
def simulator(shared: Simulator) -> Simulator:
    shared.fault(kind="none")
    shared.reset()
    return shared


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body", "end"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}, b"data: [DONE]\n\n"),
        ("/api/chat", {"messages": MESSAGES}, b"}\n"),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 5, "stream": True}, b'stop"}\n\n'),
        ("/v1/responses", {"input": "x", "stream": True}, b'"response.completed"}\n\n'),
    ],
)
async def test_streams_come_whole(
    client: httpx.AsyncClient, simulator: Simulator, path: str, body: dict[str, object], end: bytes
) -> None:
    """Every dialect streams through Serve, with one request id: Serve's."""
    answer = await client.post(path, json={"model": "smollm2:135m", **body})
    assert answer.status_code == 200
    assert answer.content.endswith(end)
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert simulator.reached == {path: 1}


async def test_headers_come_with_the_first_token(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    """So an error before it keeps its status, and time to first byte is time to first token."""
    simulator.fault(kind="comment", for_s=0.3, every_s=0.05)
    async with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}):
        assert simulator.stats()["tokens"] >= 1


async def in_two_packets(body: bytes) -> AsyncIterator[bytes]:
    """As many clients send: the body apart from the head."""
    await asyncio.sleep(0.05)
    yield body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("apart", [True, False])
async def test_a_disconnect_reaches_the_engine(
    client: httpx.AsyncClient, simulator: Simulator, stream: bool, apart: bool
) -> None:
    """Whoever leaves takes the engine's work along, streamed or not."""
    simulator.fault(kind="stall", after_tokens=3, for_s=60)
    body = json.dumps({**CHAT, "stream": stream}).encode()
    content = in_two_packets(body) if apart else body
    length = {"content-length": str(len(body))}
    asking = asyncio.create_task(
        client.post("/v1/chat/completions", content=content, headers=length)
    )
    await eventually(lambda: simulator.stats()["in_flight"] == 1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await eventually(lambda: simulator.stats()["aborts"] == 1, within_s=1)
    assert simulator.stats()["in_flight"] == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_who_hangs_up_while_waiting_never_reaches_the_engine(
    client: httpx.AsyncClient, simulator: Simulator, stream: bool
) -> None:
    """Both slots are taken; when they are free again nobody works for those who left."""
    simulator.fault(kind="stall", after_tokens=1, for_s=1, times=2)
    body = {**CHAT, "stream": stream}
    served = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(2)]
    await eventually(lambda: simulator.stats()["in_flight"] == 2)
    waiting = asyncio.create_task(client.post("/v1/chat/completions", json=body))
    assert (await client.get("/api/version")).status_code == 200  # it has had time to arrive
    waiting.cancel()
    assert [answer.status_code for answer in await asyncio.gather(*served)] == [200, 200]
    assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    assert simulator.reached == {"/v1/chat/completions": 3}


async def test_too_many_are_refused_in_their_dialect(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    """Two run, some wait, the rest get our own 503 with a time to come back.

    The gateway holds 20, however slowly they come; a replica of the direct topology holds 4.
    """
    many = 64
    simulator.fault(kind="stall", after_tokens=1, for_s=0.5, times=100)
    body = {**CHAT, "stream": False}
    answers = await asyncio.gather(
        *(client.post("/v1/chat/completions", json=body) for _ in range(many))
    )
    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(served) + len(refused) == many
    assert refused
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    assert all("busy" in answer.json()["error"]["message"] for answer in refused)
    assert simulator.reached == {"/v1/chat/completions": len(served)}
    assert simulator.stats()["max_in_flight"] == 2


async def test_oversize_bodies_are_refused(client: httpx.AsyncClient, simulator: Simulator) -> None:
    """Through Serve's proxy too."""
    answer = await client.post("/v1/chat/completions", content=b"x" * (2 << 20))
    assert answer.status_code == 413
    assert simulator.reached == {}


async def test_each_request_has_one_line_in_the_log(client: httpx.AsyncClient) -> None:
    """As JSON, under the request id that the caller got."""
    answer = await client.post("/v1/chat/completions", json=CHAT)
    request_id = answer.headers["x-request-id"]
    folder = Path(ray._private.worker._global_node.get_logs_dir_path()) / "serve"
    lines: list[dict[str, object]] = []

    def logged() -> bool:
        text = "".join(file.read_text() for file in folder.glob("replica_*.log"))
        lines[:] = [json.loads(line) for line in text.splitlines() if request_id in line]
        return bool(lines)

    await eventually(logged)
    (line,) = lines
    assert line["request_id"] == request_id
    assert (line["path"], line["status"], line["outcome"]) == ("/v1/chat/completions", 200, "ok")
    assert (line["model"], line["generated_tokens"]) == ("smollm2:135m", 8)
    assert len(str(line["trace_id"])) == 32


async def test_a_trace_crosses_every_process(
    client: httpx.AsyncClient, simulator: Simulator, received: Collector, topology: str
) -> None:
    """From the caller over the gateway's hop to the engine, and every span comes once."""
    trace, caller = secrets.token_hex(16), "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{caller}-01"}
    body = {**CHAT, "max_tokens": 8, "stream": True}
    await client.post("/v1/chat/completions", json=body, headers=headers)
    names = ["chat smollm2:135m", "decode", *(["answer call"] if topology == "gateway" else [])]
    await eventually(lambda: set(names) <= {span.name for span in received.of(trace)})
    sent = [span for span in received.of(trace) if span.name in names]
    assert len(sent) == len(names)
    spans = {span.name: span for span in sent}
    request, decode = spans["chat smollm2:135m"], spans["decode"]
    beside_engine = spans.get("answer call", request)
    assert request.parent_id == caller
    assert decode.parent_id == beside_engine.span_id
    assert simulator.last_headers["traceparent"] == f"00-{trace}-{beside_engine.span_id}-01"
    if topology == "gateway":
        assert beside_engine.parent_id == request.span_id
        assert beside_engine.resource["serve_app.deployment"] == "pool"
        assert request.resource["serve_app.deployment"] == "gateway"


METRICS = [
    'llm_requests_total.*dialect="openai".*outcome="ok"',
    "llm_requests_in_flight",
    "llm_ttft_seconds_bucket",
    "llm_inter_token_seconds_bucket",
    "llm_request_seconds_bucket",
    'llm_prompt_tokens_total.*model="smollm2:135m"',
    "llm_generated_tokens_total",
    "llm_engine_ready",
    "llm_engine_restarts",
    'llm_engine_start_seconds.*phase="load"',
    'gen_ai_server_request_duration_seconds_bucket.*gen_ai_operation_name="chat"',
    "gen_ai_server_time_to_first_token_seconds_bucket",
    "gen_ai_server_time_per_output_token_seconds_bucket",
    'gen_ai_client_inference_usage_input_tokens_total.*gen_ai_request_model="smollm2:135m"',
    "gen_ai_client_inference_usage_output_tokens_total",
]


async def test_metrics_are_exported(client: httpx.AsyncClient) -> None:
    """Under Ray's own endpoint, labelled by model and dialect."""
    body = {**CHAT, "max_tokens": 40, "stream": True, "stream_options": {"include_usage": True}}
    await client.post("/v1/chat/completions", json=body)
    assert not await not_exported(f"ray_{pattern}" for pattern in METRICS)
