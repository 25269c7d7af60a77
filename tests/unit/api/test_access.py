"""Keys and tokens over a real socket: who is let in, what they see, and what reached the engine."""

import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from tests.support.issuer import Issuer
from tests.support.service import Service, Simulator, serving
from tests.support.waiting import eventually
from tests.unit.api.test_bad_input import PATHS, VALID, message

CHAT = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
KEYS = """
alice: {keys: [sk-a, sk-a2]}
bob: {key: sk-b, models: "smollm2:*"}
late: {key: sk-late, expires: 2020-01-01}
ada: {key: sk-ada, admin: true}
groups:
  team: {models: other, admin: true}
"""


@pytest.fixture(scope="module")
async def shared_keyed(
    shared_simulator: Simulator, shared_issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    file = tmp_path_factory.mktemp("access") / "keys"
    file.write_text(KEYS)
    shared_issuer.reset()
    async with serving(
        shared_simulator, api_keys_file=file, jwt=shared_issuer.settings()
    ) as service:
        yield service


@pytest.fixture
def keyed(shared_keyed: Service, simulator: Simulator) -> Service:
    return shared_keyed


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Bearer sk-a"), ("x-api-key", "sk-b")],
        [("authorization", "Bearer sk-a"), ("x-api-key", "sk-a2")],
        [("x-api-key", "sk-a"), ("x-api-key", "sk-b")],
        [("authorization", "Bearer sk-a"), ("authorization", "Bearer sk-b")],
        [("x-api-key", "sk-late")],
        [("x-api-key", "x" * 50_000), ("authorization", "Bearer " + "y" * 50_000)],
        [("authorization", "Bearer " + "a" * 40_000 + "." + "b" * 40_000 + "." + "c" * 20_000)],
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages"])
async def test_one_valid_key_is_needed(
    keyed: Service, simulator: Simulator, headers: list[tuple[str, str]], path: str
) -> None:
    """Two different ones, an expired one, or 100 KB are refused before the engine."""
    answer = await keyed.post(path, json=CHAT, headers=httpx.Headers(headers))
    assert answer.status_code == 401
    assert message(path, answer.json())
    assert simulator.reached == {}


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Bearer sk-a"), ("x-api-key", "sk-a")],
        [("authorization", "Bearer unused"), ("x-api-key", "sk-a")],
    ],
)
async def test_one_valid_key_suffices(keyed: Service, headers: list[tuple[str, str]]) -> None:
    """Clients send it twice, or a placeholder beside it."""
    answer = await keyed.post("/v1/chat/completions", json=CHAT, headers=httpx.Headers(headers))
    assert answer.status_code == 200
    assert keyed.noted.last.caller.name == "alice"


async def test_a_token_is_as_good_as_a_key(keyed: Service, shared_issuer: Issuer) -> None:
    """Its bearer has a name that no key can have: the admin `ada` is somebody else."""
    token = shared_issuer.token(sub="ada", admin=True)
    answer = await keyed.post("/v1/chat/completions", json=CHAT, headers=bearer(token))
    assert answer.status_code == 200
    caller = keyed.noted.last.caller
    assert (caller.name, caller.admin) == ("jwt:ada", False)
    assert token not in str(keyed.noted.last.fields())


async def test_a_user_named_like_an_admin_reads_nobodys_use(
    keyed: Service, shared_issuer: Issuer, simulator: Simulator
) -> None:
    """What the provider calls its users opens nothing: not the pages of the key `ada`."""
    token = bearer(shared_issuer.token(sub="ada", admin=True, groups=["team"]))
    assert (await keyed.get("/admin/usage", headers=bearer("sk-ada"))).status_code == 200
    assert (await keyed.get("/admin/usage", headers=token)).status_code == 403
    assert (await keyed.get("/usage", headers=token)).json()["key"] == "jwt:ada"
    assert simulator.reached == {}


INVALID = {
    "expired": lambda issuer: issuer.token(exp=1),
    "without an end": lambda issuer: issuer.token(exp=None),
    "for another service": lambda issuer: issuer.token(aud="another"),
    "of another issuer": lambda issuer: issuer.token(iss="another"),
    "of an unknown key": lambda issuer: issuer.token(headers={"kid": "?"}),
    "unsigned": Issuer.unsigned,
    "signed with the public key": Issuer.signed_with_public_key,
    "too large": lambda issuer: issuer.token(x="a" * 8192),
}


@pytest.mark.parametrize("make", INVALID.values(), ids=INVALID)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages"])
async def test_an_invalid_token_reaches_nothing(
    keyed: Service,
    simulator: Simulator,
    shared_issuer: Issuer,
    make: Callable[[Issuer], str],
    path: str,
) -> None:
    """It is refused like a wrong key, and not shown."""
    token = make(shared_issuer)
    answer = await keyed.post(path, json=CHAT, headers=bearer(token))
    assert answer.status_code == 401
    assert token not in answer.text
    assert simulator.reached == {}


async def test_an_invalid_token_beside_a_valid_key_does_no_harm(
    keyed: Service, shared_issuer: Issuer
) -> None:
    """As any placeholder."""
    headers = {**bearer(shared_issuer.token(exp=1)), "x-api-key": "sk-a"}
    assert (await keyed.get("/api/tags", headers=headers)).status_code == 200


async def test_a_loop_of_unknown_keys_reaches_neither_engine_nor_provider(
    simulator: Simulator, issuer: Issuer
) -> None:
    """The provider was asked at the start, and is not again within a minute."""
    async with serving(simulator, jwt=issuer.settings()) as service:
        for number in range(20):
            token = issuer.token(headers={"kid": f"x{number}"})
            answer = await service.post("/v1/chat/completions", json=CHAT, headers=bearer(token))
            assert answer.status_code == 401
        assert issuer.fetches == 1
        assert simulator.reached == {}


async def test_a_key_and_a_token_are_two(
    keyed: Service, simulator: Simulator, shared_issuer: Issuer
) -> None:
    """Whose request it is can't be told."""
    headers = {**bearer(shared_issuer.token()), "x-api-key": "sk-a"}
    answer = await keyed.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert (answer.status_code, simulator.reached) == (401, {})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages"])
async def test_a_token_can_not_be_judged_without_the_provider(
    simulator: Simulator, issuer: Issuer, path: str
) -> None:
    """It is no 401, which would make its bearer give up; keys are valid all the same."""
    issuer.status = 500
    async with serving(simulator, api_keys={"a": "sk-a"}, jwt=issuer.settings()) as service:
        answer = await service.post(path, json=CHAT, headers=bearer(issuer.token()))
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        assert simulator.reached == {}
        assert service.noted.last.outcome == "rejected"
        assert (await service.get("/api/tags", headers=bearer("sk-a"))).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("authorization", "Bearer a.b.c"), ("x-api-key", "sk-a")], 200),
        ([("x-api-key", "sk-a"), ("authorization", "Bearer a.b.c")], 200),
        ([("authorization", "Bearer a.b.c"), ("x-api-key", "sk-b")], 503),
        ([("x-api-key", "sk-a"), ("authorization", "Bearer a.b.c"), ("x-api-key", "sk-a2")], 401),
    ],
)
async def test_a_token_that_can_not_be_judged_does_no_harm_beside_a_valid_key(
    simulator: Simulator, issuer: Issuer, headers: list[tuple[str, str]], status: int
) -> None:
    """While the provider is away; two valid keys are still two callers."""
    issuer.status = 500
    keys = {"a": "sk-a", "a2": "sk-a2"}
    async with serving(simulator, api_keys=keys, jwt=issuer.settings()) as service:
        headers = [(name, value.replace("a.b.c", issuer.token())) for name, value in headers]
        answer = await service.get("/api/tags", headers=httpx.Headers(headers))
    assert answer.status_code == status


async def test_a_service_with_tokens_alone_needs_one(simulator: Simulator, issuer: Issuer) -> None:
    """Without a file of keys."""
    async with serving(simulator, jwt=issuer.settings(jwks=str(issuer.file))) as service:
        assert (await service.get("/api/tags")).status_code == 401
        assert (await service.get("/api/tags", headers=bearer(issuer.token()))).status_code == 200


def without_id(body: str) -> str:
    return re.sub(r'"request_id":"[^"]*"', "", body)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["other", "other:latest", "library/Other"])
async def test_a_forbidden_model_is_answered_like_an_unknown_one(
    keyed: Service, simulator: Simulator, path: str, name: str
) -> None:
    """In every dialect, word for word; it never reaches the engine."""
    unknown = name.replace("other", "nope").replace("Other", "Nope")
    answers = [
        await keyed.post(path, json={**VALID[path], "model": model}, headers=bearer("sk-b"))
        for model in (name, unknown)
    ]
    forbidden, missing = answers
    assert (forbidden.status_code, missing.status_code) == (404, 404)
    expected = missing.text.replace("nope", "other").replace("Nope", "Other")
    assert without_id(forbidden.text) == without_id(expected)
    assert name.split("/")[-1] in message(path, forbidden.json())
    assert simulator.reached == {}
    assert keyed.noted.last.model == ""


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps", "/v1/models", "/openapi.json"])
async def test_a_forbidden_model_is_not_listed(keyed: Service, path: str) -> None:
    """Nor in the documentation; callers without a restriction see it."""
    seen = {
        key: (await keyed.get(path, headers=bearer(key))).text.count("other:latest")
        for key in ("sk-a", "sk-b")
    }
    assert seen["sk-a"] > 0
    assert seen["sk-b"] == 0
    answer = await keyed.get(path, headers=bearer("sk-b"))
    assert "smollm2:135m" in answer.text


@pytest.mark.parametrize("name", ["other", "other:latest"])
async def test_a_forbidden_model_has_no_page(keyed: Service, name: str) -> None:
    """`/v1/models/NAME` answers like that of an unknown one."""
    answer = await keyed.get(f"/v1/models/{name}", headers=bearer("sk-b"))
    unknown = await keyed.get("/v1/models/nope", headers=bearer("sk-b"))
    assert (answer.status_code, unknown.status_code) == (404, 404)
    assert answer.text.replace("other", "nope") == unknown.text


async def test_the_models_of_a_token_are_those_of_its_group(
    keyed: Service, shared_issuer: Issuer
) -> None:
    """As the file says."""
    headers = bearer(shared_issuer.token(groups=["team"]))
    listed = (await keyed.get("/v1/models", headers=headers)).json()["data"]
    assert [model["id"] for model in listed] == ["other:latest"]


async def test_a_description_without_models_is_one(simulator: Simulator, tmp_path: Path) -> None:
    """A key may be allowed what is not configured."""
    (tmp_path / "keys").write_text("a: {key: sk-a, models: nope}")
    async with serving(simulator, api_keys_file=tmp_path / "keys") as service:
        answer = await service.get("/openapi.json", headers=bearer("sk-a"))
        assert answer.status_code == 200


async def status(service: Service, key: str) -> int:
    return (await service.get("/api/version", headers=bearer(key))).status_code


async def test_a_key_revoked_in_the_middle_of_a_stream_ends_with_it(
    simulator: Simulator, tmp_path: Path
) -> None:
    """The stream ends as it would, the next request is refused."""
    file = tmp_path / "keys"
    file.write_text("a: sk-a\nb: sk-b")
    async with (
        serving(simulator, api_keys_file=file) as service,
        service.stream(
            "POST",
            "/v1/chat/completions",
            json={**CHAT, "stream": True, "max_tokens": 400},
            headers=bearer("sk-a"),
        ) as stream,
    ):
        chunks = stream.aiter_raw()
        text = await anext(chunks)
        file.write_text("b: sk-b")
        await eventually(lambda: service.noted.keys_file_valid == [True, True])
        assert await status(service, "sk-a") == 401
        text += b"".join([chunk async for chunk in chunks])
        assert text.endswith(b"data: [DONE]\n\n")
        assert await status(service, "sk-b") == 200
        assert simulator.reached == {"/v1/chat/completions": 1}


@pytest.mark.parametrize(
    "kind", ["a pipe", "a folder", "10 MB", "a repeated name", "a repeated key"]
)
async def test_a_broken_file_is_noted_and_changes_nothing(
    simulator: Simulator, tmp_path: Path, kind: str
) -> None:
    """While the service runs: the old key is valid, and the new one reaches nothing."""
    file = tmp_path / "keys"
    file.write_text("a: sk-a")
    async with serving(simulator, api_keys_file=file) as service:
        if kind == "a pipe":
            os.mkfifo(tmp_path / "pipe")
            (tmp_path / "pipe").rename(file)
        elif kind == "a folder":
            file.unlink()
            file.mkdir()
        elif kind == "10 MB":
            file.write_bytes(b"b: sk-b\nc: sk-c\n" * 650_000)
        elif kind == "a repeated key":
            file.write_text("b: {key: sk-b}\nc: {key: sk-b}")
        else:
            file.write_text("a: {key: sk-b}\na: {key: sk-c}")
        await eventually(lambda: service.noted.keys_file_valid[-1] is False)
        assert await status(service, "sk-a") == 200
        for key in ("sk-b", "sk-c"):
            assert await status(service, key) == 401
        assert simulator.reached == {}
