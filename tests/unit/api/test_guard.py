"""Who may ask: Hosts and Origins without keys, and keys."""

import pytest

from tests.support.service import Service, Simulator, serving

CHAT = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:11434", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("10.1.2.3:8000", 200),
        ("ollama.svc.cluster.local", 200),
        ("x.internal", 200),
        ("evil.example", 403),
        ("8.8.8.8", 403),
        ("ollama", 403),
        ("localhost.evil.example", 403),
    ],
)
async def test_hosts_are_judged_as_ollama_does(service: Service, host: str, status: int) -> None:
    """A foreign Host is refused without a word: no page may reach us under its own name."""
    answer = await service.get("/api/tags", headers={"host": host})
    assert answer.status_code == status
    assert status == 200 or answer.content == b""


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("https://127.0.0.1", 200),
        ("app://x", 200),
        ("vscode-webview://abc", 200),
        ("null", 403),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("http://[", 403),
    ],
)
async def test_origins_are_judged_as_ollama_does(
    service: Service, simulator: Simulator, origin: str, status: int
) -> None:
    """A foreign page is refused before its POST has any effect."""
    answer = await service.post("/v1/chat/completions", json=CHAT, headers={"origin": origin})
    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == (origin if status == 200 else None)
    assert len(simulator.reached) == (status == 200)


async def test_preflights_of_allowed_origins_are_answered(service: Service) -> None:
    """A browser may ask before a POST from an allowed page."""
    headers = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key",
    }
    answer = await service.options("/api/chat", headers=headers)
    assert answer.status_code == 204
    assert service.noted.last.is_probe  # without a key it could fill the log
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["access-control-allow-headers"] == "x-api-key"


async def test_preflights_of_foreign_origins_are_refused(service: Service) -> None:
    """And from no other page."""
    answer = await service.options("/api/chat", headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


async def test_configured_hosts_and_origins_are_allowed(simulator: Simulator) -> None:
    """Settings add to Ollama's own lists."""
    async with serving(
        simulator, allowed_hosts="llm.example", allowed_origins="https://chat.example"
    ) as service:
        headers = {"host": "llm.example", "origin": "https://chat.example"}
        answer = await service.get("/api/tags", headers=headers)
        assert answer.status_code == 200


KEYS = {"alice": "sk-a", "bob": "sk-b"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer sk-a"}, 200),
        ({"authorization": "bearer sk-b"}, 200),
        ({"x-api-key": "sk-b"}, 200),
        ({"authorization": "Bearer sk-"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Basic sk-a"}, 401),
        ({"x-api-key": ""}, 401),
        ({"authorization": "Bearer sk-a", "host": "llm.example"}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages", "/nope"])
async def test_keys_are_needed_where_they_are_configured(
    keyed: Service, simulator: Simulator, headers: dict[str, str], status: int, path: str
) -> None:
    """Every route needs a key, in either header; with one the Host does not matter."""
    answer = await keyed.post(path, json=CHAT, headers=headers)
    assert answer.status_code == (404 if path == "/nope" and status == 200 else status)
    if status == 401:
        assert simulator.reached == {}
        assert "www-authenticate" in answer.headers


@pytest.fixture(scope="module")
async def keyed(shared_simulator: Simulator):
    async with serving(shared_simulator, api_keys=KEYS) as service:
        yield service


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_needs_no_key(keyed: Service, path: str) -> None:
    """Probes can't carry keys, and may come under any Host."""
    assert (await keyed.get(path, headers={"host": "evil.example"})).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/api/tags", "/v1/models", "/"])
async def test_everything_else_needs_a_key(keyed: Service, path: str) -> None:
    """Listings and documentation are not for everybody."""
    assert (await keyed.get(path)).status_code == 401


async def test_the_name_of_the_key_is_noted_and_the_key_is_not(keyed: Service) -> None:
    """The log tells who asked, never with what."""
    await keyed.get("/api/tags", headers={"x-api-key": "sk-b"})
    fields = keyed.noted.last.fields()
    assert fields["key"] == "bob"
    assert "sk-b" not in str(fields)
