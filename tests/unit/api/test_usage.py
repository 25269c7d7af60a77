"""Who used what: recorded at the end of every request, read by keys and admins."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.access.usage.command import main, usage_table
from tests.support.odd_server import ODD, odd_server
from tests.support.service import Service, Simulator, serving

HELLO = [{"role": "user", "content": "hello"}]
FILE = """\
ada: {key: key-of-ada, group: science, requests_per_minute: 1000}
bob: {key: key-of-bob}
root: {key: key-of-root, admin: true}
groups:
  science: {tokens_per_day: 1000000}
"""


def key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer key-of-{name}"}


@pytest.fixture
async def keyed(simulator: Simulator, tmp_path: Path) -> AsyncIterator[Service]:
    file = tmp_path / "keys"
    file.write_text(FILE)
    async with serving(simulator, api_keys_file=file) as service:
        yield service


async def chat(service: Service, name: str, **more: Any) -> httpx.Response:
    body = {"model": "smollm2:135m", "messages": HELLO, "max_tokens": 5, **more}
    return await service.post("/v1/chat/completions", json=body, headers=key(name))


async def everyone(service: Service, query: str = "") -> dict[str, Any]:
    page = await service.get(f"/admin/usage{query}", headers=key("root"))
    assert page.status_code == 200, page.text
    return page.json()


async def test_totals_are_what_the_engine_has_counted(keyed: Service) -> None:
    """Streams and whole answers of all dialects, by key."""
    whole = (await chat(keyed, "ada")).json()["usage"]
    await chat(keyed, "ada", stream=True)
    await chat(keyed, "bob", model="other")
    body = {"model": "smollm2:135m", "messages": HELLO, "max_tokens": 5}
    await keyed.post("/v1/messages", json=body, headers=key("bob"))
    (ada, bob) = (await everyone(keyed))["data"]
    assert ada["key"] == "ada"
    assert ada["requests"] == 2
    assert ada["prompt_tokens"] == 2 * whole["prompt_tokens"]
    assert ada["generated_tokens"] == 2 * whole["completion_tokens"]
    assert ada["estimated_requests"] == 0
    assert (bob["key"], bob["requests"]) == ("bob", 2)


async def test_refused_requests_are_no_use(keyed: Service) -> None:
    """No engine has worked on them."""
    assert (await chat(keyed, "ada", model="unknown")).status_code == 404
    assert (await chat(keyed, "ada", messages=[])).status_code == 400
    assert (await everyone(keyed))["data"] == []


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("group", {("",), ("science",)}),
        ("model,key", {("smollm2:135m", "ada"), ("other:latest", "bob")}),
    ],
)
async def test_totals_are_grouped_as_asked(
    keyed: Service, by: str, names: set[tuple[str, ...]]
) -> None:
    """By any of key, group, model and day."""
    await chat(keyed, "ada")
    await chat(keyed, "bob", model="other")
    data = (await everyone(keyed, f"?by={by}"))["data"]
    assert {tuple(record[name] for name in by.split(",")) for record in data} == names


async def test_totals_come_as_csv(keyed: Service) -> None:
    """For spreadsheets."""
    await chat(keyed, "ada")
    page = await keyed.get("/admin/usage?format=csv&by=key", headers=key("root"))
    assert page.headers["content-type"] == "text/csv; charset=utf-8"
    names, line = page.text.splitlines()
    assert names.startswith("key,requests,")
    assert line.startswith("ada,1,")


async def test_a_key_gets_its_own_totals_as_csv(keyed: Service) -> None:
    """With the parameters of the admin's page."""
    await chat(keyed, "ada")
    await chat(keyed, "bob")
    page = await keyed.get("/usage?format=csv&by=key", headers=key("ada"))
    assert page.headers["content-type"] == "text/csv; charset=utf-8"
    assert [line.partition(",")[0] for line in page.text.splitlines()] == ["key", "ada"]


async def test_weighted_tokens_are_what_a_limit_counts(
    simulator: Simulator, tmp_path: Path
) -> None:
    """The totals of a key, the sum in its limit, and `limits.cost` agree."""
    file = tmp_path / "keys"
    file.write_text("ada: {key: key-of-ada, tokens_per_day: 100000}\n")
    cost = {"smollm2:135m": {"in": 3, "out": 12}}
    async with serving(simulator, api_keys_file=file, limits={"cost": cost}) as service:
        used = (await chat(service, "ada")).json()["usage"]
        (record,) = (await service.get("/usage", headers=key("ada"))).json()["data"]
        refused = await chat(service, "ada", messages=[{"role": "user", "content": "x " * 80_000}])
    weighed = 3 * used["prompt_tokens"] + 12 * used["completion_tokens"]
    assert record["weighted_tokens"] == weighed
    assert refused.headers["x-ratelimit-remaining-tokens"] == str(100_000 - weighed)


async def test_a_key_sees_its_own_use_and_limits(keyed: Service) -> None:
    """And nobody else's."""
    await chat(keyed, "ada")
    await chat(keyed, "bob")
    page = (await keyed.get("/usage", headers=key("ada"))).json()
    assert (page["key"], page["group"]) == ("ada", "science")
    assert page["limits"] == {"requests_per_minute": 1000}
    assert page["group_limits"] == {"tokens_per_day": 1000000}
    assert [record["requests"] for record in page["data"]] == [1]


async def test_others_totals_need_an_admin_key(keyed: Service) -> None:
    """A plain key is told which."""
    page = await keyed.get("/admin/usage", headers=key("ada"))
    assert page.status_code == 403
    assert "admin: true" in page.json()["error"]["message"]
    assert (await keyed.get("/admin/usage")).status_code == 401


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("since=yesterday", "since must be a day such as"),
        ("until=0001-01-05", "until must be a day such as"),
        ("since=2026-01-02&until=2026-01-01", "since (2026-01-02) must be at most 365 days before"),
        ("since=1000-01-01", "must be at most 365 days before"),
        ("by=user", "by can't be 'user': use key, group, model and day"),
        ("days=0", "days must be between 1 and 366, not '0'"),
        ("days=367", "days must be between 1 and 366"),
        ("days=٣", "days must be between 1 and 366"),
        ("days=1&since=2026-01-01", "days and since can't be used together: use one of them"),
        ("format=xml", "format can't be 'xml': use json or csv"),
        ("untill=2026-01-01", "untill is not a parameter: use since, until, days, by or format"),
        ("since", "the query can't be read"),
    ],
)
async def test_impossible_queries_are_refused(keyed: Service, query: str, sentence: str) -> None:
    """By name."""
    page = await keyed.get(f"/admin/usage?{query}", headers=key("root"))
    assert page.status_code == 400
    assert sentence in page.json()["error"]["message"]


async def test_days_are_counted_back_in_the_time_zone_of_limits(
    simulator: Simulator, tmp_path: Path
) -> None:
    """A page's own clock may be a day ahead or behind."""
    file = tmp_path / "keys"
    file.write_text("root: {key: key-of-root, admin: true}")
    ends = []
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):  # 25 hours apart
        async with serving(simulator, api_keys_file=file, limits={"timezone": zone}) as service:
            page = (await service.get("/admin/usage?days=7", headers=key("root"))).json()
        since, until = date.fromisoformat(page["since"]), date.fromisoformat(page["until"])
        assert (until - since).days == 6
        ends.append(until)
    assert ends[0] > ends[1]


async def test_counts_of_one_of_several_replicas_are_not_shown(
    simulator: Simulator, tmp_path: Path
) -> None:
    """They would look like those of the service."""
    file = tmp_path / "keys"
    file.write_text("root: {key: key-of-root, admin: true}")
    more = {"max_replicas": 2}
    async with serving(simulator, api_keys_file=file, autoscaling=more) as service:
        page = await service.get("/admin/usage", headers=key("root"))
    assert page.status_code == 503
    assert "set limits.store to redis" in page.json()["error"]["message"]
    assert service.noted.last.outcome == "rejected"


async def test_the_customer_of_a_caller_is_logged(keyed: Service) -> None:
    """In OpenAI's field or in Anthropic's."""
    await chat(keyed, "ada", user="customer 7")
    assert keyed.noted.last.fields()["user"] == "customer 7"
    body = {"model": "smollm2:135m", "messages": HELLO, "max_tokens": 5}
    more = {"metadata": {"user_id": "customer 8"}}
    await keyed.post("/v1/messages", json=body | more, headers=key("ada"))
    assert keyed.noted.last.fields()["user"] == "customer 8"
    assert keyed.noted.last.fields()["group"] == "science"


async def test_the_command_prints_a_table(
    keyed: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what the service answers, or says in a sentence what is missing."""
    await chat(keyed, "ada")
    options = ["--url", str(keyed.base_url)]
    admin, plain = ({"LLM_ADMIN_KEY": f"key-of-{name}"} for name in ("root", "ada"))
    assert await asyncio.to_thread(main, options, admin) == 0
    names, line = capsys.readouterr().out.splitlines()
    assert names.split()[:2] == ["key", "requests"]
    assert line.split()[:2] == ["ada", "1"]
    assert await asyncio.to_thread(main, options, plain) == 1
    assert "answered 403: this needs a key" in capsys.readouterr().err
    assert main(options, {}) == 1
    assert "LLM_ADMIN_KEY is not set" in capsys.readouterr().err


async def test_the_command_counts_days_back(
    keyed: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """The days reach the service, which refuses a number that can't be."""
    options = ["--url", str(keyed.base_url), "--until", "2026-11-30", "--days"]
    admin = {"LLM_ADMIN_KEY": "key-of-root"}
    assert await asyncio.to_thread(main, [*options, "3"], admin) == 0
    assert capsys.readouterr().out == "no use from 2026-11-28 to 2026-11-30\n"
    assert await asyncio.to_thread(main, [*options, "0"], admin) == 1
    assert "days must be between 1 and 366, not '0'" in capsys.readouterr().err


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("more", [[], ["--csv"]])
async def test_what_is_no_service_is_named(
    odd: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A login page, or another service at the address: one sentence and the exit code 1."""
    async with odd_server({"/admin/usage": ODD[odd]}) as url:
        options = ["--url", url, *more]
        assert await asyncio.to_thread(main, options, {"LLM_ADMIN_KEY": "key"}) == 1
    printed = capsys.readouterr()
    assert (printed.err.startswith(url), printed.out) == (True, "")


@pytest.mark.usefixtures("dead_proxy")
async def test_no_proxy_sees_the_admins_key(keyed: Service) -> None:
    """A service on this machine is asked directly, also behind HTTP_PROXY."""
    options = ["--url", str(keyed.base_url)]
    assert await asyncio.to_thread(main, options, {"LLM_ADMIN_KEY": "key-of-root"}) == 0


def test_an_empty_table_is_a_sentence() -> None:
    page = {"by": ["key"], "since": "2026-11-01", "until": "2026-11-30", "data": []}
    assert usage_table(page) == "no use from 2026-11-01 to 2026-11-30"
