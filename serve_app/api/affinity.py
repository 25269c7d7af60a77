"""A caller's hint that its requests share the beginning of their prompts."""

from hashlib import blake2b

from serve_app.api.endpoint import Payload
from serve_app.api.http import Request
from serve_app.engines.base import Flow

SESSION = b"x-session-id"
# Characters of a hint that count, and bytes of its hash.
_MAX_HINT, _HASH_BYTES = 65_536, 16


def take_affinity(request: Request, payload: Payload, flow: Flow) -> str | None:
    """Return the hash of the hint, if there is one, which means nothing in another group.

    Removes OpenAI's hint from the payload: no engine here knows it.
    """
    key = payload.pop("prompt_cache_key", None)
    hint = request.header(SESSION) or key
    return _hash(flow, hint[:_MAX_HINT]) if hint and isinstance(hint, str) else None


def _hash(flow: Flow, hint: str) -> str:
    owner = (flow.group, "") if flow.group else ("", flow.key)
    text = "\0".join((*owner, hint)).encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=_HASH_BYTES).hexdigest()
