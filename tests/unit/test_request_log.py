"""The request log: batched, in its order, in the form of Serve's handlers."""

import asyncio
import json
import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path

import pytest

from serve_app.api.exchange import Exchange
from serve_app.request_log import RequestLog, logger, spare_access_records
from tests.support.waiting import eventually

SERVE = logging.getLogger("ray.serve")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Serve's logger as a replica has it, on a small file."""
    path = tmp_path / "replica.log"
    target = RotatingFileHandler(path, maxBytes=1000, backupCount=2)
    target.setFormatter(logging.Formatter("%(levelname)s %(request_id)s %(message)s"))
    before = SERVE.handlers, SERVE.level, SERVE.propagate, logger.level
    SERVE.handlers, SERVE.propagate = [MemoryHandler(1000, target=target)], False
    SERVE.setLevel(logging.INFO)
    yield path
    target.close()
    SERVE.handlers, _, SERVE.propagate, _ = before
    SERVE.setLevel(before[1])
    logger.setLevel(before[3])


def memory() -> MemoryHandler:
    return next(each for each in SERVE.handlers if isinstance(each, MemoryHandler))


def text(file: Path) -> str:
    return file.read_text()


def ended(request_id: str) -> Exchange:
    exchange = Exchange("POST", "/v1/chat/completions", "openai", request_id)
    exchange.status = 200
    exchange.end()
    return exchange


async def test_lines_are_written_soon_and_in_order(file: Path) -> None:
    log = RequestLog(as_json=False)
    for name in ("one", "two"):
        log.add(ended(name))
    assert text(file) == ""
    await eventually(lambda: "two" in text(file))
    lines = text(file).splitlines()
    assert [line.split()[:5] for line in lines] == [
        ["INFO", name, "POST", "/v1/chat/completions", "200"] for name in ("one", "two")
    ]


async def test_what_was_said_before_comes_before(file: Path) -> None:
    SERVE.warning("the engine is lost", extra={"request_id": "-"})
    log = RequestLog(as_json=False)
    log.add(ended("one"))
    log.write()
    assert [line.split()[0] for line in text(file).splitlines()] == ["WARNING", "INFO"]


async def test_a_full_file_is_rotated(file: Path) -> None:
    log = RequestLog(as_json=False)
    for number in range(40):
        log.add(ended(f"r{number}"))
        log.write()
    kept = [file.with_suffix(f".log.{n}") for n in (2, 1)]
    lines = "".join(text(path) for path in [*kept, file]).splitlines()
    assert all(path.stat().st_size <= 1000 for path in kept)
    assert [line.split()[1] for line in lines] == [f"r{n}" for n in range(40 - len(lines), 40)]


async def test_filters_decide_and_json_has_fields(file: Path) -> None:
    handler = memory()
    assert handler.target
    handler.target.setFormatter(_Json())
    handler.addFilter(lambda record: record.__dict__["request_id"] != "hidden")
    log = RequestLog(as_json=True)
    log.add(ended("hidden"))
    log.write()
    assert text(file) == ""
    log.add(ended("shown"))
    log.write()
    line = json.loads(text(file))
    assert (line["path"], line["outcome"]) == ("/v1/chat/completions", "ok")
    assert float(line["duration_ms"]) < 1000


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({key: str(value) for key, value in record.__dict__.items()})


async def test_serves_own_records_are_spared_and_ours_are_not(file: Path) -> None:
    spare_access_records()
    assert not SERVE.isEnabledFor(logging.INFO)
    logger.info("ready", extra={"request_id": "-"})
    RequestLog(as_json=False).write()
    memory().flush()
    assert text(file) == "INFO - ready\n"


async def test_a_level_that_somebody_chose_stays(file: Path) -> None:
    SERVE.setLevel(logging.DEBUG)
    spare_access_records()
    assert SERVE.level == logging.DEBUG


async def test_no_line_below_the_level(file: Path) -> None:
    SERVE.setLevel(logging.WARNING)
    log = RequestLog(as_json=False)
    log.add(ended("one"))
    await asyncio.sleep(0)
    log.write()
    assert text(file) == ""
