"""The state of the stand-in API server, which tests set and read."""

import re
from dataclasses import dataclass, field
from typing import Any

from tests.support.kubernetes.store import Store


@dataclass
class Fault:
    """A fault in place of the answer to the next `times` matching requests.

    `status` 0 closes the connection without an answer; `hang_s` delays the answer; `text` replaces
    its JSON.
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


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any


@dataclass
class Cluster:
    """The stand-in's state, which tests set and read.

    `forbidden` has plurals, or one verb of them: `secrets`, `patch rayclusters`.
    """

    store: Store
    token: str = "token-of-the-tests"
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    logs: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    page: int | None = None
    proxied: dict[str, Any] = field(default_factory=dict)  # JSON by address behind `/proxy/`
    proxied_headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def writes(self) -> list[Request]:
        """The requests that change something, in their order."""
        return [r for r in self.requests if r.method != "GET" and not is_rehearsal(r)]


def is_rehearsal(request: Request) -> bool:
    """Return whether a request is a dry run; a deletion's options are in its body, if any."""
    if request.method == "DELETE" and request.body:
        return "dryRun" in request.body
    return "dryRun" in request.query
