"""Every field that OpenAI and Anthropic document for a request is known, passed on or not."""

import pytest
from anthropic.types.message_create_params import MessageCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from serve_app.api import anthropic, openai

# Fields that stay at the front door, and why no answer means anything else without them.
DROPPED = {
    "/v1/responses": {
        "access_programs": "whose models of OpenAI may be used",
        "background_options": "of background, which is refused",
        "image": "of images, which are refused",
        "prompt_cache_options": "how long OpenAI keeps a prompt's cache",
        "prompt_cache_retention": "the same",
        "service_tier": "OpenAI's prices",
        "stream_options": "noise against eavesdroppers",
    },
    "/v1/messages": {
        "cache_control": "which part of a prompt Anthropic keeps in its cache",
        "diagnostics": "why that cache missed",
        "inference_geo": "where Anthropic computes",
        "service_tier": "Anthropic's prices",
        "speed": "the same",
        "user_profile_id": "for whom the caller asks",
        "workspace_id": "which workspace is billed",
    },
}
DOCUMENTED = {
    "/v1/responses": ResponseCreateParamsBase.__annotations__.keys(),
    "/v1/messages": MessageCreateParamsBase.__annotations__.keys(),
}


@pytest.mark.parametrize("path", DOCUMENTED)
def test_documented_fields_are_known(path: str) -> None:
    """A field of the official client reaches the engine, or stands on the list of those dropped."""
    (endpoint,) = (
        endpoint for endpoint in (*openai.ENDPOINTS, *anthropic.ENDPOINTS) if endpoint.path == path
    )
    assert DOCUMENTED[path] - endpoint.keys == DROPPED[path].keys()
