"""Routes: explicit ones only, errors in the words of the path's dialect."""

import pytest

from serve_app.engines.base import State
from tests.support.service import Service, Simulator, serving


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/api/nope", ["error"]),
        ("/api/tags/", ["error"]),
        ("/v1/messages/count_tokens", ["type", "error", "request_id"]),
        ("/v1/nope", ["error"]),
        ("/nope", ["error"]),
        ("/API/tags", ["error"]),
    ],
)
async def test_unknown_paths_get_404(service: Service, path: str, keys: list[str]) -> None:
    """A path that is no route is 404 in the dialect of its prefix."""
    answer = await service.get(path)
    assert answer.status_code == 404
    assert list(answer.json()) == keys


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/api/chat", "POST"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("POST", "/api/tags", "HEAD, GET"),
        ("HEAD", "/api/ps", "GET"),
        ("HEAD", "/v1/models", "GET"),
        ("POST", "/", "HEAD, GET"),
        ("GET", "/v1/messages", "POST"),
        ("OPTIONS", "/api/chat", "POST"),
    ],
)
async def test_wrong_methods_get_405(service: Service, method: str, path: str, allow: str) -> None:
    """A wrong method is 405 and says which are right."""
    answer = await service.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
async def test_head_is_answered_where_ollama_answers_it(service: Service, path: str) -> None:
    """HEAD gives the headers of GET, and no body."""
    head, get = await service.head(path), await service.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"] != "0"


@pytest.mark.parametrize(
    "target", [b"/api/%70ull", b"//api/pull", b"/v1/../api/pull", b"/api/%63hat", b"/api//chat"]
)
async def test_unclean_paths_reach_nothing(
    service: Service, simulator: Simulator, target: bytes
) -> None:
    """No other spelling of a path reaches what the plain one does not."""
    answer = await service.request(
        "POST", "/", json={"model": "smollm2:135m"}, extensions={"target": target}
    )
    assert answer.status_code in (403, 404)
    assert simulator.reached == {}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("HEAD", "/api/blobs/sha256:00"),
        ("POST", "/api/blobs/sha256:00"),
        ("POST", "/api/me"),
        ("POST", "/api/experimental/web_search"),
    ],
)
async def test_management_is_refused(
    service: Service, simulator: Simulator, method: str, path: str
) -> None:
    """Managing models over the API is refused with a sentence that says how it is done instead."""
    answer = await service.request(method, path, json={"model": "x"})
    assert answer.status_code == 403
    assert method == "HEAD" or "SERVE_APP_MODELS" in answer.json()["error"]
    assert simulator.reached == {}


async def test_models_are_listed_in_both_dialects(service: Service) -> None:
    """Both listings show every configured model by its canonical name."""
    openai, ollama = await service.get("/v1/models"), await service.get("/api/tags")
    names = ["smollm2:135m", "other:latest"]
    assert [model["id"] for model in openai.json()["data"]] == names
    assert [model["name"] for model in ollama.json()["models"]] == names


@pytest.mark.parametrize(
    "spelling", ["smollm2:135m", "SmolLM2:135M", "library/smollm2:135m", "library%2Fsmollm2:135m"]
)
async def test_one_model_is_found_by_any_spelling(service: Service, spelling: str) -> None:
    """An id may hold `:` and `/`, in any case."""
    answer = await service.get(f"/v1/models/{spelling}")
    assert answer.json()["id"] == "smollm2:135m"


async def test_unknown_model_is_404(service: Service) -> None:
    """An id that is not configured is not found, and named with its tag, as Ollama does."""
    answer = await service.get("/v1/models/nope")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "model 'nope:latest' not found"


async def test_running_models_never_expire(service: Service) -> None:
    """Every model is loaded for good."""
    running = (await service.get("/api/ps")).json()["models"]
    assert {model["name"] for model in running} == {"smollm2:135m", "other:latest"}
    assert all(model["expires_at"].startswith("23") for model in running)


async def test_documentation_describes_every_route(service: Service) -> None:
    """The OpenAPI document has every route, and its page fetches nothing from elsewhere."""
    paths = (await service.get("/openapi.json")).json()["paths"]
    assert {"/v1/chat/completions", "/api/chat", "/v1/messages", "/healthz"} <= set(paths)
    assert {"get", "head"} <= set(paths["/api/tags"])
    page = (await service.get("/docs")).text
    assert "://" not in page
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js"):
        assert (await service.get(f"/docs/{asset}")).status_code == 200


async def test_health_tells_process_and_engine_apart(simulator: Simulator) -> None:
    """Without its engine the process is up, but not ready, and says why."""
    async with serving(simulator) as service:
        assert (await service.get("/readyz")).status_code == 200
        service.engine._lose("tested")
        answer = await service.get("/readyz")
        assert (answer.status_code, answer.json()) == (
            503,
            {"status": f"engine {State.DOWN}: tested"},
        )
        assert (await service.get("/healthz")).status_code == 200
