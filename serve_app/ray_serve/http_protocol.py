"""uvicorn's HTTP/1.1 protocol without `Upgrade`: an offer of another protocol is ignored.

RFC 9110 7.8 lets a server ignore an offer, and the request is then an ordinary one. httptools
stops after the head of such a request, before its body, and gives no way to go on: so the body
was lost (`Upgrade: h2c`, which the JDK's client sends with each request), or uvicorn handed the
connection to its WebSocket implementation, which answers no POST.
"""

from typing import Any

import httptools
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def install() -> None:
    """Use this protocol in every uvicorn server that this process starts from now on.

    Serve builds uvicorn's configuration itself and leaves the protocol at `auto`.
    """
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{HttpProtocol.__name__}"


class HttpProtocol(HttpToolsProtocol):
    """Parses the head of a request with an offer a second time, without the offer."""

    parser: "_Parser"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ws_protocol_class = None
        self.parser = _Parser(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        while self.parser.rest is not None:
            head, rest = self._head_without_offer(), self.parser.rest
            self.parser = _Parser(self)  # the old one reads nothing after a `Connection: close`
            super().data_received(head + rest)

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
