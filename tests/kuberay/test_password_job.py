"""The Job that creates Redis's password, run against a small API server."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import of_kind, read

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")


class Api(ThreadingHTTPServer):
    """Answers 201 to the first creation of a Secret and then 409, or a refusal."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.secrets: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.refuses = False
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((self.path, self.headers["authorization"]))
        name = body["metadata"]["name"]
        status = 403 if self.server.refuses else 409 if name in self.server.secrets else 201
        if status == 201:
            self.server.secrets[name] = body
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Not on the tests' terminal."""


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def account(tmp_path: Path) -> Path:
    for name, text in {"token": "T", "namespace": "space", "ca.crt": ""}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(api: Api, account: Path) -> int:
    """Run the container's script with the test's server and account."""
    (job,) = of_kind(read(Path("rayservice.yaml")), "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    script = script.replace("https://kubernetes.default.svc", api.url)
    script = script.replace("/var/run/secrets/kubernetes.io/serviceaccount", str(account))
    script = script.replace(f"--cacert {account}/ca.crt", "").replace(
        "--cacert $account/ca.crt", ""
    )
    return subprocess.run([*container["command"], script], capture_output=True).returncode


def test_the_password_is_made_where_the_service_looks_for_it(api: Api, account: Path) -> None:
    """The password is long and random, and created in the Job's namespace with its token."""
    assert run(api, account) == 0
    assert api.requests == [("/api/v1/namespaces/space/secrets", "Bearer T")]
    password = api.secrets["llm-redis"]["stringData"]["password"]
    assert len(password) == 64
    api.secrets.clear()
    run(api, account)
    assert api.secrets["llm-redis"]["stringData"]["password"] != password


def test_a_password_that_is_there_stays(api: Api, account: Path) -> None:
    """Run again, the Job succeeds and changes nothing."""
    run(api, account)
    before = dict(api.secrets)
    assert run(api, account) == 0
    assert api.secrets == before


def test_a_refusal_fails_the_job(api: Api, account: Path) -> None:
    """The Job fails if the API server refuses, so that Kubernetes retries it."""
    api.refuses = True
    assert run(api, account) != 0
