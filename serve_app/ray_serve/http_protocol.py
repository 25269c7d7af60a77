"""uvicorn's HTTP/1.1 protocol without `Upgrade`, which notifies the API of a lost connection.

It hands the API a body that has come with the head, and begins the short way of a request, see
direct_ingress.py, at once: uvicorn's own wrappers cost a twentieth of a short request.

RFC 9110 7.8 lets a server ignore an offer of another protocol, and the request is then an ordinary
one. httptools stops after the head of such a request, before its body, and gives no way to go on:
so the body was lost (`Upgrade: h2c`, which the JDK's client sends with each request), or uvicorn
handed the connection to its WebSocket implementation, which answers no POST.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import httptools
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serve_app.api.http import WATCH, WHOLE_BODY
from serve_app.ray_serve.request_id import drop_invalid_ids


def install(*, in_proxy: bool = False) -> None:
    """Use this protocol in every uvicorn server that this process starts from now on.

    Serve builds uvicorn's configuration itself and leaves the protocol at `auto`. Serve's own proxy
    pickles the scope of a request for its replica, so there is nothing to call in it.
    """
    protocol = ProxyHttpProtocol if in_proxy else HttpProtocol
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{protocol.__name__}"


class ShortWay(Protocol):
    """Answers a request past the applications around it, or passes it on to `app`."""

    def answer(self, cycle: RequestResponseCycle, app: Any) -> Coroutine[Any, Any, None]: ...


class HttpProtocol(HttpToolsProtocol):
    """Parses the head of a request with an offer a second time, without the offer.

    Every request's scope has `WATCH`, which spares the API a task that waits for the loss, and
    `WHOLE_BODY`.
    """

    parser: "_Parser"
    _on_disconnect: Callable[[], object] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ws_protocol_class = None
        self.parser = _Parser(self)
        self._short_way = _short_way(self.app)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        while self.parser.rest is not None:
            head, rest = self._head_without_offer(), self.parser.rest
            self.parser = _Parser(self)  # the old one reads nothing after a `Connection: close`
            super().data_received(head + rest)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._on_disconnect:
            self._on_disconnect()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        scope[WATCH] = self._watch
        scope[WHOLE_BODY] = partial(_whole_body, cycle)
        if self._short_way is None or app is not self.app:
            drop_invalid_ids(scope)
            super()._start_asgi_task(cycle, app)
            return
        task = self.loop.create_task(self._short_way.answer(cycle, app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _watch(self, on_disconnect: Callable[[], object]) -> Callable[[], None]:
        self._on_disconnect = on_disconnect
        self.flow.resume_reading()  # paused after a large body: no loss would be noticed
        if self.transport.is_closing():
            on_disconnect()
        return partial(self._forget, on_disconnect)

    def _forget(self, on_disconnect: Callable[[], object]) -> None:
        if self._on_disconnect == on_disconnect:  # otherwise it belongs to the next request
            self._on_disconnect = None

    def on_headers_complete(self) -> None:
        if not self.parser.has_offer:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.has_offer:
            super().on_message_complete()

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])


def _short_way(app: Any) -> ShortWay | None:
    """Return the short way of the application, or of one within it."""
    while app is not None:
        way: ShortWay | None = getattr(app, "short_way", None)
        if way:
            return way
        app = getattr(app, "app", None)
    return None


def _whole_body(cycle: RequestResponseCycle) -> bytes | None:
    """Take the body if all of it has come, so that no message has to be awaited for it."""
    if cycle.more_body or cycle.disconnected:
        return None
    body = bytes(cycle.body)
    cycle.body = bytearray()
    cycle.message_event.clear()  # the next message is the loss of the connection
    return body


class ProxyHttpProtocol(HttpProtocol):
    """The protocol without `WATCH` and `WHOLE_BODY`."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        drop_invalid_ids(cycle.scope)
        super(HttpProtocol, self)._start_asgi_task(cycle, app)


class _Parser(httptools.HttpRequestParser):
    """Parses one request; `rest`: the bytes after a head with an offer, else None."""

    def __init__(self, protocol: HttpProtocol) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.rest: bytes | None = None

    @property
    def has_offer(self) -> bool:
        """Whether the head has `Upgrade`, which CONNECT asks for by itself."""
        return self.should_upgrade() and self.get_method() != b"CONNECT"

    def feed_data(self, data: Any) -> None:
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            if not self.has_offer:
                raise
            self.rest = bytes(data[stop.args[0] :])
