"""The service that queues are told: expected at the start of a request, counted at its end."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve_app.access.caller import ANONYMOUS, Caller
from serve_app.access.limits.limiter import build_limiter
from serve_app.access.policies import Limits
from serve_app.api import openai
from serve_app.api.bodies import Bodies
from serve_app.api.body import encode_body
from serve_app.api.charge import Charge, Charges, payload_text_bytes
from serve_app.api.endpoint import Endpoint, RequestBounds
from serve_app.api.exchange import Exchange
from serve_app.api.inference import Inference
from serve_app.api.relay import Tail
from serve_app.api.request_trace import RequestTrace
from serve_app.engines.base import Answer, Call, Usage
from serve_app.errors import BadRequest, CallerLeft, EngineDown, EngineLost
from serve_app.limit_settings import LimitSettings
from serve_app.model_names import ModelNames

CHAT: Endpoint = openai.ENDPOINTS[0]
PAYLOAD: dict[str, Any] = {"model": "m:latest", "max_tokens": 100, "messages": ["x" * 360]}


async def begin(
    caller: Caller, charges: Charges | None = None, **settings: Any
) -> tuple[Charge, RequestTrace]:
    trace = RequestTrace("POST", CHAT.path, "openai", "")
    trace.note_caller(caller)
    trace.note_model("m:latest")
    charges = charges or Charges(build_limiter(LimitSettings.model_validate(settings)))
    return await charges.begin(CHAT, PAYLOAD, len(encode_body(PAYLOAD)), trace), trace


async def nothing() -> AsyncIterator[bytes]:
    for chunk in ():
        yield chunk


def answer(status: int = 200) -> Answer:
    return Answer(status, (), nothing())


async def test_generated_tokens_count_twice() -> None:
    """At the start as expected, at the end as counted."""
    charge, trace = await begin(Caller("ada"))
    assert charge.service == pytest.approx(len(encode_body(PAYLOAD)) / 4 + 2 * 100)
    trace.usage = Usage(prompt=50, generated=20)
    ended = answer()
    charge.settle(ended)
    assert ended.served == 50 + 2 * 20


async def test_costs_weigh_service() -> None:
    """As they weigh limits; cached tokens too."""
    cost = {"m": {"in": 2, "cached": 1, "out": 3}}
    charge, trace = await begin(Caller("ada"), cost=cost)
    trace.usage = Usage(prompt=50, generated=20, cached=10)
    ended = answer()
    charge.settle(ended)
    assert ended.served == 2 * 40 + 10 + 3 * 2 * 20


async def test_an_uncounted_answer_has_the_service_of_its_estimate() -> None:
    """The prompt's, and two for each event."""
    charge, trace = await begin(Caller("ada"))
    tail = Tail()
    tail.add(b"data: a\n\ndata: b\n\n")
    ended = answer()
    charge.settle(ended, tail)
    assert trace.estimated
    assert ended.served == (trace.usage.prompt or 0) + 2 * 2


async def test_a_settled_request_is_settled_once() -> None:
    """Whatever happens to it afterwards."""
    charge, trace = await begin(Caller("ada"))
    trace.usage = Usage(prompt=50, generated=20)
    charge.settle(answer())
    trace.usage = Usage()
    charge.settle(answer())
    charge.fail(EngineLost("later"))
    assert not trace.estimated


@pytest.mark.parametrize(("engines", "estimated"), [(0, False), (2, True)])
@pytest.mark.parametrize("failure", [EngineDown("no engine"), CallerLeft()])
async def test_a_call_that_no_engine_has_was_worked_on_if_others_were_lost(
    failure: EngineDown | CallerLeft, engines: int, estimated: bool
) -> None:
    """Then the prompt is paid for."""
    charge, trace = await begin(Caller("ada"))
    failure.engines = engines
    charge.fail(failure)
    assert trace.estimated is estimated


async def test_a_request_that_the_engine_refuses_counts_as_one() -> None:
    """As an error that it raises, or as its answer: no tokens, and no refund."""
    caller = Caller("ada", limits=Limits(requests_per_minute=10, tokens_per_minute=1000))
    charges = Charges(build_limiter(LimitSettings()))
    for refused in (BadRequest("no tools"), answer(400)):
        charge, trace = await begin(caller, charges)
        if isinstance(refused, Answer):
            charge.settle(refused)
        else:
            charge.fail(refused)
        assert not trace.estimated
    charge, _ = await begin(caller, charges)
    headers = dict(charge.headers)
    assert headers[b"x-ratelimit-remaining-requests"] == b"7"
    assert int(headers[b"x-ratelimit-remaining-tokens"]) > 1000 - 1.5 * (
        len(encode_body(PAYLOAD)) / 4 + 100
    )


class Dispatcher:
    """Keeps the call that it is sent."""

    def __init__(self) -> None:
        self.call: Call | None = None

    async def send(self, call: Call) -> Answer:
        self.call = call
        raise EngineDown("no engine")


@pytest.mark.parametrize(("caller", "has_service"), [(Caller("ada"), True), (ANONYMOUS, False)])
async def test_queues_are_told_of_callers_with_keys(caller: Caller, has_service: bool) -> None:
    """Without keys nothing is estimated."""
    dispatcher: Any = Dispatcher()
    charges = Charges(build_limiter(LimitSettings()))
    bounds = RequestBounds(100, False, 100)
    inference = Inference(CHAT, dispatcher, ModelNames(["m"]), charges, bounds, Bodies(1000, 1, 9))
    trace = RequestTrace("POST", CHAT.path, "openai", "")
    trace.note_caller(caller)
    trace.note_model("m:latest")
    request: Any = type("Request", (), {"header": lambda self, name: "", "headers": {}})()
    send: Any = None
    with pytest.raises(EngineDown):
        await inference._send(Exchange(CHAT, request, dict(PAYLOAD), send, trace))
    assert bool(dispatcher.call.service) is has_service


@pytest.mark.parametrize(
    ("word", "counts"),
    [("A" * 100_000, 1024), ("a b " * 25_000, 100_000), ("你" * 100_000, 100_000)],
    ids=["base64", "text", "Chinese"],
)
def test_long_words_are_no_text(word: str, counts: int) -> None:
    """Base64 is; text in a script without spaces is not."""
    payload = {"messages": [{"content": [{"image_url": {"url": word}}]}]}
    size = len(word) + 100
    assert payload_text_bytes(payload, size) == counts + 100
