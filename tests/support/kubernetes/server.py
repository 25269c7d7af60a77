"""A small API server on a real socket, with TLS, a token, and faults on demand.

It behaves as Kubernetes' does towards a client of RayServices: schema validation, resource
versions and conflicts, server-side apply, watches that end, drop and expire, refusals of every
kind. It has no controllers: recordings are played into its store, or a test acts as the operator.
"""

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.support.kubernetes import certificate
from tests.support.kubernetes.failures import Refused
from tests.support.kubernetes.kinds import KINDS, Address, address, discovery, groups
from tests.support.kubernetes.schema import Schema
from tests.support.kubernetes.selectors import matches
from tests.support.kubernetes.store import Object, Store

_BOOKMARK_S = 60.0


@dataclass
class Fault:
    """What the next `times` requests that match get instead of an answer.

    `status` 0 closes the connection without a word; `hang_s` holds the answer back; `text` comes
    in place of JSON.
    """

    status: int = 0
    text: str = ""
    method: str = ".*"
    path: str = ".*"
    times: int = 1
    retry_after: int | None = None
    hang_s: float = 0.0

    def takes(self, method: str, path: str) -> bool:
        fits = re.fullmatch(self.method, method) and re.search(self.path, path)
        return self.times > 0 and bool(fits)


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that breaks off or refuses our certificate is the test's business."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any


@dataclass
class Cluster:
    """The stand-in's state, and what tests set and read."""

    store: Store
    token: str = "token-of-the-tests"
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    logs: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    page: int | None = None

    @property
    def writes(self) -> list[Request]:
        """Requests that change something, in their order."""
        return [
            each
            for each in self.requests
            if each.method != "GET" and not _is_rehearsal(each.query, each.body)
        ]


class ApiServer:
    """`cluster` behind a socket on loopback; a context manager."""

    def __init__(self, folder: Path, schema: Schema | None) -> None:
        self.cluster = Cluster(Store({"rayservices": schema} if schema else {}))
        self._folder = folder
        self._watches: set[socket.socket] = set()
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self._authority = certificate.make(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._authority)
        self._http.socket = context.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def __enter__(self) -> "ApiServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self.drop_watches()
        self._http.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def certificate(self) -> Path:
        return self._authority

    def kubeconfig(self, namespace: str = "default") -> Path:
        """A file that leads here, with two contexts: `stand-in`, and `nobody` without a token."""
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self._authority),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stand-in",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [
                {"name": "test", "user": {"token": self.cluster.token}},
                {"name": "nobody", "user": {"token": "wrong"}},
            ],
            "contexts": [
                _context("stand-in", "test", namespace),
                _context("nobody", "nobody", namespace),
            ],
        }
        file = self._folder / "kubeconfig"
        file.write_text(yaml.safe_dump(content))
        return file

    def drop_watches(self) -> None:
        """Break every watch and followed log in the middle, as a restarting API server does."""
        for each in list(self._watches):
            with suppress(OSError):  # it has ended meanwhile
                each.shutdown(socket.SHUT_RDWR)

    def watching(self, connection: socket.socket) -> "_Watching":
        return _Watching(self._watches, connection)

    @property
    def watches(self) -> int:
        return len(self._watches)


class _Watching:
    def __init__(self, among: set[socket.socket], connection: socket.socket) -> None:
        self._among = among
        self._connection = connection

    def __enter__(self) -> None:
        self._among.add(self._connection)

    def __exit__(self, *_: object) -> None:
        self._among.discard(self._connection)


def _context(name: str, user: str, namespace: str) -> Object:
    return {"name": name, "context": {"cluster": "here", "user": user, "namespace": namespace}}


def _is_rehearsal(query: dict[str, str], body: Any) -> bool:
    return "dryRun" in query or (isinstance(body, dict) and "dryRun" in body)


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        standin = server

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    standin: ApiServer

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PATCH = do_DELETE = do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at `Cluster.requests` instead."""

    def _answer(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length).decode()
        cluster = self.standin.cluster
        try:
            if self._disturbed(url.path):
                return
            body = yaml.safe_load(text) if text else None
            request = Request(self.command, url.path, query, body)
            cluster.requests.append(request)
            self._admit(request)
            self._serve(request, cluster)
        except Refused as refused:
            self._reply(refused.code, refused.status)
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True

    def _disturbed(self, path: str) -> bool:
        fault = next((f for f in self.standin.cluster.faults if f.takes(self.command, path)), None)
        if fault is None:
            return False
        fault.times -= 1
        time.sleep(fault.hang_s)
        if not fault.status:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return True
        if fault.text:
            self._send(fault.status, "text/html", fault.text.encode())
            return True
        refused = Refused(fault.status, "the server is currently unable to handle the request")
        self._reply(fault.status, refused.status, fault.retry_after)
        return True

    def _admit(self, request: Request) -> None:
        cluster = self.standin.cluster
        if self.headers.get("authorization", "").lower() != f"bearer {cluster.token}":
            raise Refused(401, "Unauthorized")
        found = address(request.path)
        if found and found.plural in cluster.forbidden:
            raise Refused(
                403,
                f'{found.plural} is forbidden: User "test" cannot {request.method.lower()} '
                f'resource "{found.plural}" in the namespace "{found.namespace}"',
            )

    def _serve(self, request: Request, cluster: Cluster) -> None:
        found = address(request.path)
        if found is None:
            self._reply(200, _resources(request.path))
        elif found.subresource == "log":
            self._log(found, request.query)
        elif request.query.get("watch") == "true":
            self._watch(found, request.query)
        elif request.method == "GET":
            self._reply(200, _read(cluster, found, request.query))
        else:
            content_type = self.headers.get("Content-Type", "")
            code = 201 if request.method == "POST" else 200
            self._reply(code, _write(cluster.store, found, request, content_type))

    def _reply(self, code: int, body: Object, retry_after: int | None = None) -> None:
        wait = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._send(code, "application/json", json.dumps(body).encode(), wait)

    def _send(
        self, code: int, content_type: str, content: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _watch(self, found: Address, query: dict[str, str]) -> None:
        with self.standin.watching(self.connection):
            self._begin_stream("application/json")
            for line in _changes(self.standin.cluster.store, found, query):
                self._chunk(json.dumps(line).encode() + b"\n")
            self._chunk(b"")

    def _log(self, found: Address, query: dict[str, str]) -> None:
        store, logs = self.standin.cluster.store, self.standin.cluster.logs
        pod = store.get("pods", found.namespace, found.name)
        _refuse_log(pod, query["container"])
        with self.standin.watching(self.connection):
            self._begin_stream("text/plain")
            sent = 0
            while True:
                lines = logs.get((found.name, query["container"]), [])
                for line in _log_lines(lines[sent:], query, sent == 0):
                    self._chunk(line.encode() + b"\n")
                sent = len(lines)
                if query.get("follow") != "true" or not _has(store, found):
                    break
                with store.changed:
                    store.changed.wait(0.05)
            self._chunk(b"")

    def _begin_stream(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()


def _resources(path: str) -> Object:
    """Discovery: the core's version, the other groups, or the kinds of one version."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups()}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in {of for of, _ in KINDS}:
        raise Refused(404, "the server could not find the requested resource")
    return {"kind": "APIResourceList", "groupVersion": version, "resources": discovery(version)}


def _read(cluster: Cluster, found: Address, query: dict[str, str]) -> Object:
    if found.name:
        return cluster.store.get(found.plural, found.namespace, found.name)
    with cluster.store.changed:
        objects = cluster.store.list(found.plural, found.namespace)
        version = cluster.store.version
    items = [each for each in objects if matches(each, query)]
    begin, size = int(query.get("continue") or 0), cluster.page or int(query.get("limit") or 500)
    metadata: Object = {"resourceVersion": str(version)}
    if begin + size < len(items):
        metadata["continue"] = str(begin + size)
    kind = KINDS[found.version, found.plural]
    return {
        "kind": f"{kind}List",
        "apiVersion": found.version,
        "metadata": metadata,
        "items": items[begin : begin + size],
    }


def _write(store: Store, found: Address, request: Request, content_type: str) -> Object:
    plural, namespace, body = found.plural, found.namespace, request.body
    dry = _is_rehearsal(request.query, body)
    manager = request.query.get("fieldManager", "unknown")
    if request.method == "POST":
        return store.create(plural, namespace, body, manager, dry)
    if request.method == "DELETE":
        store.delete(plural, namespace, found.name, body or {}, dry)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if content_type == "application/apply-patch+yaml":
        force = request.query.get("force") == "true"
        return store.apply(plural, namespace, body, manager, force, dry)
    if content_type == "application/merge-patch+json":
        return store.patch(plural, namespace, found.name, body, manager, dry)
    raise Refused(415, f"unsupported media type {content_type}")


def _changes(store: Store, found: Address, query: dict[str, str]) -> Iterator[Object]:
    """The lines of a watch, until its time is over."""
    until = time.monotonic() + float(query.get("timeoutSeconds") or 3600)
    after = int(query.get("resourceVersion") or 0)
    if after > store.version:
        message = f"Timeout: Too large resource version: {after}, current: {store.version}"
        yield {"type": "ERROR", "object": Refused(504, message).status}
        return
    bookmark_at = time.monotonic() + _BOOKMARK_S
    while time.monotonic() < until:
        try:
            with store.changed:
                news = list(store.changes(found.plural, after))
                if not news:
                    store.changed.wait(0.5)
        except Refused as refused:
            yield {"type": "ERROR", "object": refused.status}
            return
        for each in news:
            after = each.version
            is_here = each.object["metadata"]["namespace"] == found.namespace
            if is_here and matches(each.object, query):
                yield {"type": each.type, "object": each.object}
        if time.monotonic() > bookmark_at:
            bookmark_at += _BOOKMARK_S
            metadata = {"resourceVersion": str(max(after, store.version))}
            yield {"type": "BOOKMARK", "object": {"metadata": metadata}}


def _refuse_log(pod: Object, container: str) -> None:
    status = pod.get("status") or {}
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    state = next((each["state"] for each in statuses if each["name"] == container), None)
    if state is None or "waiting" in state:
        reason = (state or {}).get("waiting", {}).get("reason", "PodInitializing")
        raise Refused(
            400,
            f'container "{container}" in pod "{pod["metadata"]["name"]}" is waiting to start: '
            f"{reason}",
        )


def _log_lines(lines: list[str], query: dict[str, str], is_first: bool) -> Iterator[str]:
    """Stored lines begin with their time."""
    if is_first and "tailLines" in query:
        lines = lines[len(lines) - int(query["tailLines"]) :] if int(query["tailLines"]) else []
    for line in lines:
        stamp, _, text = line.partition(" ")
        if stamp >= query.get("sinceTime", ""):
            yield line if query.get("timestamps") == "true" else text


def _has(store: Store, found: Address) -> bool:
    try:
        store.get("pods", found.namespace, found.name)
    except Refused:
        return False
    return True
