"""Answers HTTP requests with an answer, a stream or a fault."""

import json
import socket
import ssl
import time
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.support.kubernetes import answers
from tests.support.kubernetes.cluster import Cluster, Request
from tests.support.kubernetes.failures import Refused
from tests.support.kubernetes.kinds import Address, address
from tests.support.kubernetes.store import Object


class StandIn(Protocol):
    """The server of a handler."""

    cluster: Cluster

    def watching(self, connection: socket.socket) -> AbstractContextManager[None]: ...


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    standin: StandIn

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PATCH = do_DELETE = do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: tests read `Cluster.requests`."""

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
        target = address(request.path)
        verb = request.method.lower()
        if target and {target.plural, f"{verb} {target.plural}"} & cluster.forbidden:
            raise Refused(
                403,
                f'{target.plural} is forbidden: User "test" cannot {verb} '
                f'resource "{target.plural}" in the namespace "{target.namespace}"',
            )

    def _serve(self, request: Request, cluster: Cluster) -> None:
        target = address(request.path)
        if target is None:
            self._reply(200, answers.resources(request.path))
        elif target.subresource == "proxy":
            cluster.proxied_headers.append({k.lower(): v for k, v in self.headers.items()})
            self._reply(200, cluster.proxied[request.path.partition("/services/")[2]])
        elif target.subresource == "log":
            self._log(target, request.query)
        elif request.query.get("watch") == "true":
            self._watch(target, request.query)
        elif request.method == "GET":
            self._reply(200, answers.read(cluster, target, request.query))
        else:
            content_type = self.headers.get("Content-Type", "")
            code = 201 if request.method == "POST" else 200
            self._reply(code, answers.write(cluster.store, target, request, content_type))

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

    def _watch(self, target: Address, query: dict[str, str]) -> None:
        with self.standin.watching(self.connection):
            self._begin_stream("application/json")
            for line in answers.changes(self.standin.cluster.store, target, query):
                self._chunk(json.dumps(line).encode() + b"\n")
            self._chunk(b"")

    def _log(self, target: Address, query: dict[str, str]) -> None:
        store, logs = self.standin.cluster.store, self.standin.cluster.logs
        pod = store.get("pods", target.namespace, target.name)
        answers.refuse_log(pod, query["container"])
        with self.standin.watching(self.connection):
            self._begin_stream("text/plain")
            sent = 0
            while True:
                # A copy, because lines may be added while these are sent; the next turn sends them.
                lines = list(logs.get((target.name, query["container"]), []))
                for line in answers.log_lines(lines[sent:], query, sent == 0):
                    self._chunk(line.encode() + b"\n")
                sent = len(lines)
                if query.get("follow") != "true" or not answers.has(store, target):
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
