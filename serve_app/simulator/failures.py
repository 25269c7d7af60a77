"""Errors before the first token, written as each dialect of Ollama writes them."""

import secrets

from serve_app.go_json import encode
from serve_app.simulator.wire import EVENT_HEADERS, HttpResponse

_TYPES = {400: "invalid_request_error", 404: "not_found_error"}


class ErrorAnswer(Exception):
    """An answer that is an error; `str(error)` is its text.

    The headers of the answer depend on the layer of Ollama that fails: `early` is the parser of
    requests, `late` the engine, whose error comes after the stream has been set up.
    """

    def __init__(
        self, status: int, message: str, *, early: bool = False, late: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.early = early
        self.late = late


def reply(response: HttpResponse, path: str, error: ErrorAnswer, *, stream: bool) -> None:
    """Answer with `error` in the dialect of `path`; `stream`: the request wants a stream."""
    if path.startswith("/v1/"):
        _reply_v1(response, path, error, stream)
    elif error.late and stream:
        response.begin("application/json", status=error.status)
        response.end([native(str(error))])
    else:
        response.whole(native(str(error)), status=error.status)


def native(message: str) -> bytes:
    return encode({"error": message})


def _reply_v1(response: HttpResponse, path: str, error: ErrorAnswer, stream: bool) -> None:
    body = _anthropic(error) if path == "/v1/messages" else _openai(error)
    if error.early:
        response.whole(body, status=error.status)
        return
    events = stream and path in ("/v1/messages", "/v1/responses")
    headers = EVENT_HEADERS if events else ()
    response.whole(body + b"\n", "application/json", status=error.status, headers=headers)


def _openai(error: ErrorAnswer) -> bytes:
    kind = _TYPES.get(error.status, "api_error")
    return encode({"error": {"message": str(error), "type": kind, "param": None, "code": None}})


def _anthropic(error: ErrorAnswer) -> bytes:
    kind = "overloaded_error" if error.status == 503 else _TYPES.get(error.status, "api_error")
    return encode(
        {
            "type": "error",
            "error": {"type": kind, "message": str(error)},
            "request_id": f"req_{secrets.token_hex(12)}",
        }
    )
