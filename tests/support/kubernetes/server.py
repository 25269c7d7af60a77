"""A small API server on a real socket, with TLS, a token and injected faults.

It behaves as Kubernetes' does towards a client of RayServices: schema validation, resource
versions and conflicts, server-side apply, watches that end, drop and expire, refusals of every
kind. It has no controllers: recordings are played into its store, or a test acts as the operator.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from tests.support.kubernetes import certificate
from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.handler import Handler
from tests.support.kubernetes.schema import Schema
from tests.support.kubernetes.store import Object, Store


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore callers that break off or refuse the certificate: tests do so."""


class ApiServer:
    """A server of `cluster` on loopback; a context manager."""

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
        """Write a kubeconfig with the contexts `stand-in`, and `nobody`, which has no token."""
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
        for watch in list(self._watches):
            with suppress(OSError):  # it has ended meanwhile
                watch.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def watching(self, connection: socket.socket) -> Iterator[None]:
        self._watches.add(connection)
        try:
            yield
        finally:
            self._watches.discard(connection)

    @property
    def watches(self) -> int:
        return len(self._watches)


def _context(name: str, user: str, namespace: str) -> Object:
    return {"name": name, "context": {"cluster": "here", "user": user, "namespace": namespace}}


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Bound(Handler):
        standin = server

    return Bound
