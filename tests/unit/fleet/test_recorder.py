"""One process's notes on the requests that it has answered."""

import gc
import tracemalloc

from serve_app.api.outcome import Outcome
from serve_app.api.relay import Usage
from serve_app.errors import BadRequest, EngineLost, InternalError, NotFound
from serve_app.fleet import history
from serve_app.fleet.recorder import Recorder
from tests.support.fleets import NOW, trace


def recorder() -> Recorder:
    return Recorder(lambda: NOW)


def total(of: Recorder) -> int:
    outcomes = history.series([of.traffic().history], NOW)["outcomes"]
    return sum(map(sum, outcomes.values()))


def failed(exc: Exception, status: int = 500, **noted: object) -> object:
    made = trace(**noted)
    made.fail(exc)
    made.status = status
    return made


def test_listings_and_probes_do_not_count() -> None:
    """A viewer's own polls are no traffic."""
    seen = recorder()
    seen.ended(trace(model=""))
    seen.ended(trace(is_probe=True))
    assert total(seen) == 0
    seen.ended(trace())
    seen.ended(failed(NotFound("model 'x' not found"), 404, model=""))
    assert total(seen) == 2


def test_errors_of_one_kind_are_one_note() -> None:
    """With their number and the last sentence."""
    seen = recorder()
    seen.ended(failed(EngineLost("the first"), 502))
    seen.ended(failed(BadRequest("no messages"), 400))
    seen.ended(failed(EngineLost("the second"), 502, request_id="r2"))
    bad, lost = seen.traffic().errors
    assert (bad.kind, bad.count) == ("BadRequest", 1)
    assert (lost.kind, lost.count, lost.sentence, lost.request_id) == (
        *("EngineLost", 2, "the second"),
        "r2",
    )


def test_a_key_in_the_wrong_place_is_not_shown() -> None:
    """Neither from a quoted header, nor from an id."""
    seen = recorder()
    seen.ended(failed(BadRequest("not 'sk-llm-0123'"), 400, request_id="sk-llm-4567"))
    (note,) = seen.traffic().errors
    assert (note.sentence, note.request_id) == ("not 'sk-***'", "sk-***")


def test_a_disconnect_is_no_error() -> None:
    """It counts, but there is nothing to advise."""
    seen = recorder()
    seen.ended(trace(outcome=Outcome.CANCELLED))
    assert (total(seen), seen.traffic().errors) == (1, ())


def test_an_engines_own_refusal_is_noted() -> None:
    """Its answer has gone to the caller as it was."""
    seen = recorder()
    made = trace()
    made.refuse(400)
    made.status = 400
    seen.ended(made)
    assert seen.traffic().errors[0].kind == "EngineAnswer"


def test_an_unexpected_fault_shows_no_text() -> None:
    """What it says may be anything; the log has it."""
    seen = recorder()
    made = trace(error=ValueError("sk-secret"), outcome=Outcome.INTERNAL_ERROR)
    seen.ended(made)
    seen.ended(failed(InternalError()))
    assert "sk-secret" not in str(seen.traffic().errors)


def test_rates_by_replica() -> None:
    """Behind a gateway, the replica that answered is known to the gateway."""
    seen = recorder()
    seen.ended(trace(replica="a", usage=Usage(100, 39, 50)))
    rate = seen.traffic().by_replica["a"]
    assert (rate.tokens_per_s, rate.cached, rate.cacheable) == (1.0, 50, 100)


def test_it_stays_within_64_kib() -> None:
    """With the longest errors, of ever new models and replicas."""
    traces = [
        failed(EngineLost("x" * 1000), 502, model=f"m{i}", replica=f"replica-{i}")
        for i in range(2000)
    ]
    gc.collect()
    tracemalloc.start()
    seen = recorder()
    for made in traces:
        seen.ended(made)
    gc.collect()
    # Of the recorder alone: other threads of the tests allocate meanwhile.
    taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/fleet/*")])
    tracemalloc.stop()
    size = sum(trace.size for trace in taken.traces)
    assert 1_000 < size < 65_536, size
    assert seen.traffic()
