"""The request log: batched, in its order, through Serve's own handlers and filters."""

import json
import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import pytest
from ray._common.formatters import JSONFormatter
from ray.serve._private import replica
from ray.serve._private.common import ServeComponentType
from ray.serve._private.logging_utils import configure_component_logger
from ray.serve.context import _serve_request_context, _set_request_context
from ray.serve.schema import LoggingConfig

from serve_app.access.caller import Caller
from serve_app.api.request_trace import RequestTrace
from serve_app.errors import IssuerDown
from serve_app.ray_serve.request_log import EndedRequest, RequestLog, disable_access_records
from serve_app.tracing.context import TraceContext
from serve_app.tracing.notes import SpanNotes

SERVE = logging.getLogger("ray.serve")
MAX_BYTES = 4000  # several lines of JSON


@pytest.fixture(params=["TEXT", "JSON"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where Serve's logger writes, set up as Serve does it in a replica."""
    before = SERVE.handlers[:], SERVE.level, SERVE.propagate
    configure_component_logger(
        component_name="pool",
        component_id="r1",
        component_type=ServeComponentType.REPLICA,
        logging_config=LoggingConfig(
            encoding=request.param, logs_dir=str(tmp_path), enable_access_log=False
        ),
        max_bytes=MAX_BYTES,
        backup_count=2,
        buffer_size=1000,
    )
    yield tmp_path / "replica_pool_r1.log"
    target().close()
    SERVE.handlers, SERVE.propagate = before[0], before[2]
    SERVE.setLevel(before[1])


@pytest.fixture
def log(file: Path) -> RequestLog:
    return RequestLog(as_json=isinstance(target().formatter, JSONFormatter))


def memory() -> MemoryHandler:
    return next(handler for handler in SERVE.handlers if isinstance(handler, MemoryHandler))


def target() -> logging.Handler:
    handler = memory().target
    assert handler
    return handler


def text(file: Path) -> str:
    return file.read_text()


def ended(request_id: str, path: str = "/v1/chat/completions", quiet: bool = False) -> EndedRequest:
    """As at the end of a request that Serve knows."""
    token = _serve_request_context.set(None)
    _set_request_context(route="/", request_id=request_id, app_name="llm")
    trace = RequestTrace("POST", path, "openai", request_id)
    trace.status = 200
    trace.is_probe = quiet
    trace.end()
    ended = EndedRequest.now(trace)
    _serve_request_context.reset(token)
    return ended


def test_lines_are_written_in_order(file: Path, log: RequestLog) -> None:
    log.write([ended("id-one"), ended("probe", quiet=True), ended("id-two")])
    one, two = text(file).splitlines()
    assert "id-one" in one
    assert "id-two" in two
    assert all("POST /v1/chat/completions 200 ok" in line for line in (one, two))


@pytest.mark.parametrize("file", ["JSON"], indirect=True)
def test_json_has_the_fields_of_serve_and_of_the_trace(file: Path, log: RequestLog) -> None:
    log.write([ended("id-one")])
    line: dict[str, Any] = json.loads(text(file))
    assert {name: line[name] for name in ("request_id", "route", "application")} == {
        "request_id": "id-one",
        "route": "/",
        "application": "llm",
    }
    assert {name: line[name] for name in ("deployment", "replica", "outcome", "status")} == {
        "deployment": "pool",
        "replica": "r1",
        "outcome": "ok",
        "status": 200,
    }
    assert 0 <= line["duration_ms"] < 1000


def test_a_traced_request_has_the_id_of_its_trace(file: Path, log: RequestLog) -> None:
    """In either format; others have none."""
    traced, other = ended("id-one"), ended("id-two")
    traced.trace.span = SpanNotes(TraceContext(0xABC, 1, True))
    log.write([traced, other])
    lines = text(file).splitlines()
    assert f"{0xABC:032x}" in lines[0]
    assert "trace=" not in lines[1]


def test_records_before_come_before(file: Path, log: RequestLog) -> None:
    SERVE.warning("the engine is lost")
    log.write([ended("id-one")])
    before, after = text(file).splitlines()
    assert "the engine is lost" in before
    assert "id-one" in after


def test_a_full_file_is_rotated(file: Path, log: RequestLog) -> None:
    numbers = range(100)
    for number in numbers:
        log.write([ended(f"id-{number:03d}")])
    rotated = [file.with_name(f"{file.name}.{n}") for n in (2, 1)]
    assert all(0 < len(text(path)) <= MAX_BYTES for path in rotated)
    lines = "".join(map(text, [*rotated, file])).splitlines()
    assert all(f"id-{n:03d}" in line for n, line in zip(numbers[-len(lines) :], lines, strict=True))


def test_one_bad_line_costs_no_other(
    file: Path,
    log: RequestLog,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    format_ = target().format

    def failing(record: logging.LogRecord) -> str:
        return format_(record) if "bad" not in record.getMessage() else "\udc80"  # no UTF-8 for it

    monkeypatch.setattr(target(), "format", failing)
    log.write([ended("id-one"), ended("id-two", path="/bad"), ended("id-three")])
    written = "".join(map(text, file.parent.iterdir()))
    assert all(name in written for name in ("id-one", "id-three"))
    assert "UnicodeEncodeError" in capsys.readouterr().err


def test_nobody_forges_a_line(file: Path, log: RequestLog) -> None:
    log.write([ended("x\u0085INFO forged", path="/a\nINFO forged")])
    (line,) = text(file).splitlines()
    assert "forged" in line


@pytest.mark.parametrize("file", ["TEXT"], indirect=True)
def test_nobody_forges_a_field(file: Path, log: RequestLog) -> None:
    """By spaces in the path, or in the name of a customer."""
    request = ended("id", path="/a 200 ok key=boss x")
    request.trace.user = "customer 7 key=boss"
    log.write([request])
    words = text(file).split()
    assert "/a%20200%20ok%20key=boss%20x" in words
    assert "user=customer%207%20key=boss" in words
    assert "key=boss" not in words


def test_a_key_in_the_wrong_place_is_not_shown(file: Path, log: RequestLog) -> None:
    request = ended("sk-llm-of-the-id", path="/v1/models/sk-llm-of-the-path")
    request.trace.user = "sk-llm-of-the-user"
    log.write([request])
    assert "of-the" not in text(file)
    assert text(file).count("sk-***") >= 3


def test_no_line_below_the_level(file: Path, log: RequestLog) -> None:
    SERVE.setLevel(logging.WARNING)
    log.write([ended("id-one")])
    assert text(file) == ""


@pytest.fixture
def disabled(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(replica, "logger", replica.logger)
    disable_access_records()


def test_serves_records_of_each_request_are_not_made(disabled: None, file: Path) -> None:
    """Warnings, and the service's own records at INFO, are still written."""
    assert not replica.logger.isEnabledFor(logging.INFO)
    SERVE.info("the engine is ready")
    replica.logger.warning("a request was cancelled")
    memory().flush()
    assert [word in text(file) for word in ("ready", "cancelled")] == [True, True]


def test_at_debug_all_records_are_made(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "logger", replica.logger)
    SERVE.setLevel(logging.DEBUG)
    disable_access_records()
    assert replica.logger is SERVE


@pytest.mark.parametrize("status", [401, 403, 503])
def test_callers_without_a_key_can_not_fill_the_log(
    file: Path, log: RequestLog, status: int
) -> None:
    """A thousand refusals are one line a minute; the next valid request has its own."""
    traces = [RequestTrace("GET", "/ui", "openai", "") for _ in range(1001)]
    for trace in traces:
        trace.note_status(status)
        if status == 503:
            trace.fail(IssuerDown("no keys to verify a token with"))
        trace.end()
    traces[-1].error = None
    traces[-1].status = 200
    log.write([EndedRequest.now(trace) for trace in traces])
    memory().flush()
    first, second = file.read_text().splitlines()
    assert str(status) in first
    assert "200" in second


def test_a_caller_with_a_name_is_logged_when_it_is_refused(file: Path, log: RequestLog) -> None:
    """So is one without a name that has named a model."""
    named, of_model = (RequestTrace("GET", "/admin/fleet", "openai", "") for _ in range(2))
    named.note_caller(Caller("bob"))
    of_model.note_model("smollm2:135m")
    for trace in (named, of_model):
        trace.note_status(403)
        trace.end()
    log.write([EndedRequest.now(trace) for trace in (named, of_model, named, of_model)])
    memory().flush()
    assert len(text(file).splitlines()) == 4
