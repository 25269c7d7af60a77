"""The page of the live fleet over a real socket: who gets it, and with which headers."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from serve_app.api import fleet_pages
from serve_app.fleet.advice import NEEDS_ADMIN_KEY, NO_ADMIN_KEY
from tests.support.fleets import Stage
from tests.support.scenes import empty
from tests.support.service import Service, Simulator, serving

PAGE = Path(fleet_pages.__file__).parents[1] / "fleet" / "page"
FILES = ["/ui", *(f"/ui/{path.name}" for path in PAGE.iterdir() if path.name != "index.html")]
GUARDED = ["/ui", "/ui/app.js", "/admin/fleet", "/admin/usage"]
WITH_ADMIN = "ada: {key: sk-ada, admin: true}\nbob: {key: sk-bob}\n"
WITHOUT_ADMIN = "bob: {key: sk-bob}\n"


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}


def message(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["message"])


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage(empty())


@pytest.fixture(scope="module")
async def open_service(shared_simulator: Simulator, stage: Stage) -> AsyncIterator[Service]:
    """Without keys, where Serve listens on loopback."""
    async with serving(shared_simulator, fleet=stage) as service:
        yield service


@pytest.fixture(scope="module")
async def keyed(
    shared_simulator: Simulator, stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    file = tmp_path_factory.mktemp("fleet") / "keys"
    file.write_text(WITH_ADMIN)
    async with serving(shared_simulator, fleet=stage, api_keys_file=file) as service:
        yield service


@pytest.mark.parametrize("host", ["::1", "localhost"])
async def test_on_loopback_without_keys_everybody_sees_it(
    simulator: Simulator, stage: Stage, host: str
) -> None:
    """A laptop needs no key."""
    async with serving(simulator, fleet=stage, http_host=host) as service:
        assert (await service.get("/ui")).status_code == 200
        document = await service.get("/admin/fleet")
        assert document.json()["version"] == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", None])
async def test_without_an_admin_key_nobody_sees_it(
    simulator: Simulator, stage: Stage, host: str | None
) -> None:
    """The answer says how to make one, whatever a caller claims about where it comes from."""
    claims = dict.fromkeys(("x-forwarded-for", "x-real-ip", "forwarded"), "127.0.0.1")
    async with serving(simulator, fleet=stage, http_host=host) as service:
        for path in GUARDED:
            answer = await service.get(path, headers=claims)
            assert (answer.status_code, message(answer)) == (403, NO_ADMIN_KEY)


async def test_with_keys_of_which_none_is_an_admins(
    simulator: Simulator, stage: Stage, tmp_path: Path
) -> None:
    """On loopback too."""
    file = tmp_path / "keys"
    file.write_text(WITHOUT_ADMIN)
    async with serving(simulator, fleet=stage, api_keys_file=file) as service:
        for path in GUARDED:
            answer = await service.get(path, headers=bearer("bob"))
            assert (answer.status_code, message(answer)) == (403, NO_ADMIN_KEY)
        for path in GUARDED:
            await service.get(path)
            assert service.noted.last.is_from_stranger  # together one line a minute in the log


async def test_the_document_is_for_admins(keyed: Service) -> None:
    """Neither for nobody, nor for a wrong key, nor for one in the address."""
    assert (await keyed.get("/admin/fleet")).status_code == 401
    assert (await keyed.get("/admin/fleet", headers=bearer("eve"))).status_code == 401
    assert (await keyed.get("/admin/fleet?key=sk-ada&x-api-key=sk-ada")).status_code == 401
    refused = await keyed.get("/admin/fleet", headers=bearer("bob"))
    assert (refused.status_code, message(refused)) == (403, NEEDS_ADMIN_KEY)
    assert (await keyed.get("/admin/fleet", headers=bearer("ada"))).status_code == 200
    assert (await keyed.get("/admin/fleet", headers={"x-api-key": "sk-ada"})).status_code == 200


@pytest.mark.parametrize("path", FILES)
async def test_the_page_itself_needs_no_key(keyed: Service, path: str) -> None:
    """It holds nothing secret, and asks for the key."""
    assert (await keyed.get(path)).status_code == 200


async def test_a_slash_at_the_end_leads_to_the_page(keyed: Service) -> None:
    """Relative to a prefix of a proxy, and without a key, as the page itself."""
    answer = await keyed.get("/ui/")
    assert (answer.status_code, answer.headers["location"]) == (308, "../ui")
    assert answer.next_request is not None
    assert answer.next_request.url.path == "/ui"


async def test_a_foreign_host_gets_nothing(open_service: Service) -> None:
    """A page of another site that resolves its name to this machine."""
    for path in ("/ui", "/admin/fleet"):
        answer = await open_service.get(path, headers={"host": "evil.example"})
        assert (answer.status_code, answer.content) == (403, b"")


async def test_no_other_site_may_read_it(open_service: Service) -> None:
    """The answer carries no permission for a foreign origin."""
    answer = await open_service.get("/admin/fleet", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.status_code == 403


@pytest.mark.parametrize("path", FILES)
async def test_the_policy_is_strict(open_service: Service, path: str) -> None:
    """No inline script, no other address, no frame, no markup from text."""
    headers = (await open_service.get(path)).headers
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    for rule in ("frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"):
        assert rule in policy
    assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


async def test_a_document_that_has_not_changed_is_not_sent_again(
    open_service: Service, stage: Stage
) -> None:
    """It has an age, by which a viewer sees that nobody gathers any more."""
    first = await open_service.get("/admin/fleet")
    tag = {"if-none-match": first.headers["etag"]}
    second = await open_service.get("/admin/fleet", headers=tag)
    assert (second.status_code, second.content) == (304, b"")
    assert int(second.headers["age"]) >= 0
    stage.show({**empty(), "queue": [1]})
    assert (await open_service.get("/admin/fleet", headers=tag)).status_code == 200


async def test_every_answer_says_when_to_poll_next(simulator: Simulator, stage: Stage) -> None:
    """After a second for one viewer, later for a crowd; a 304 says so too. The source knows it."""
    async with serving(simulator, fleet=stage) as service:
        first = await service.get("/admin/fleet")
        assert first.headers["poll-after"] == "1.00"
        tag = {"if-none-match": first.headers["etag"]}
        for _ in range(60):
            answer = await service.get("/admin/fleet", headers=tag)
    assert answer.status_code == 304
    assert float(answer.headers["poll-after"]) == pytest.approx(5, abs=0.5)
    assert stage.every_s == pytest.approx(float(answer.headers["poll-after"]), abs=0.01)


async def test_files_are_packed_and_remembered(open_service: Service) -> None:
    """Together they are below 150 KB."""
    size = 0
    for path in FILES:
        answer = await open_service.get(path)
        assert answer.headers["content-encoding"] == "gzip"
        size += int(answer.headers["content-length"])
        again = await open_service.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert size < 150_000
    plain = await open_service.get("/ui", headers={"accept-encoding": "identity"})
    assert plain.text == (PAGE / "index.html").read_text()


async def test_viewers_are_no_traffic(open_service: Service) -> None:
    """Their polls get no line in the log, and no place in the charts."""
    open_service.noted.ended_exchanges.clear()
    await open_service.get("/admin/fleet")
    await open_service.get("/ui")
    assert all(trace.is_probe for trace in open_service.noted.ended_exchanges)


async def test_a_setting_turns_it_off(simulator: Simulator) -> None:
    """Then there are no such paths."""
    async with serving(simulator) as service:
        assert (await service.get("/ui")).status_code == 404
        assert (await service.get("/admin/fleet")).status_code == 404


def test_the_page_is_files_alone() -> None:
    """No inline script or style, no address of another host, no text that becomes markup."""
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style| style=| on\w+=", html)
    for path in PAGE.iterdir():
        text = path.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), path
        if path.name != "preact.js":
            assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", text), path
