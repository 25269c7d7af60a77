"""Documented request fields that are accepted without effect, with the reason for each.

Every other documented field works, or an engine that can't obey it answers 400 and names it.
"""

from collections.abc import Mapping

_TRACKING = "tells OpenAI who asks or why; nothing is stored here"
_CACHE = "prompts are cached by their prefix, without being asked"
_TIER = "there is one tier"
_HINT = "a hint for OpenAI's own models; no engine here has it"
_NO_STATE = "no request is kept, so none can be stored or resumed"
_SHARED = "would change the loaded model for every caller; see allow_model_options"
_IMAGES = "for models that make images; none is served"
_ANTHROPIC = "a matter of Anthropic's own service"

_OPENAI_CHAT = {
    "user": _TRACKING,
    "safety_identifier": _TRACKING,
    "metadata": _TRACKING,
    "store": _NO_STATE,
    "service_tier": _TIER,
    "prompt_cache_options": _CACHE,
    "prompt_cache_retention": _CACHE,
    "prediction": "makes OpenAI's answers faster, not different",
    "verbosity": _HINT,
}
_NATIVE = {"keep_alive": _SHARED}

# By route, then by field.
IGNORED: Mapping[str, Mapping[str, str]] = {
    "/v1/chat/completions": _OPENAI_CHAT,
    "/v1/completions": {"user": _TRACKING},
    "/v1/embeddings": {"user": _TRACKING},
    "/v1/responses": {
        **{field: reason for field, reason in _OPENAI_CHAT.items() if field != "prediction"},
        "access_programs": "a matter of OpenAI's own service",
        "background_options": "there are no background responses",
        "image": _IMAGES,
        "stream_options": "streams are never padded against eavesdroppers",
    },
    "/v1/messages": {
        "metadata": _TRACKING,
        "service_tier": _TIER,
        "cache_control": _CACHE,
        "container": "for tools that run at Anthropic; there are none",
        "diagnostics": _ANTHROPIC,
        "inference_geo": _ANTHROPIC,
        "speed": _ANTHROPIC,
        "user_profile_id": _ANTHROPIC,
        "workspace_id": _ANTHROPIC,
    },
    "/api/chat": {**_NATIVE, "shift": _SHARED},
    "/api/generate": {
        **_NATIVE,
        "shift": _SHARED,
        "width": _IMAGES,
        "height": _IMAGES,
        "steps": _IMAGES,
    },
    "/api/embed": _NATIVE,
    "/api/embeddings": _NATIVE,
    "/api/show": dict.fromkeys(
        ("system", "template", "options"),
        "an Ollama shows it in place of the model's own; the embedded engine has the model's only",
    ),
}

# Keys that Ollama reads and no request may use, on any route.
WITHHELD: Mapping[str, str] = {
    "_debug_render_only": "answers with the rendered prompt in place of a completion"
}
# Routes of Ollama that the service does not have; see `tests/contract/differences.py`.
UNSERVED: Mapping[str, str] = {
    "/v1/messages/count_tokens": "Ollama 0.33 answers 404 itself",
}
