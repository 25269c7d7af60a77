"""The events of OpenAI's Responses API: required fields, listed by hand, and parsing by its SDK."""

from typing import Any, get_args

from openai.types.responses import Response, ResponseStreamEvent

_ITEM = "item_id output_index"
_TEXT = f"{_ITEM} content_index"
_SUMMARY = f"{_ITEM} summary_index"

# Required beside `type` and `sequence_number`.
REQUIRED = {
    "response.created": "response",
    "response.in_progress": "response",
    "response.completed": "response",
    "response.incomplete": "response",
    "response.failed": "response",
    "response.output_item.added": "output_index item",
    "response.output_item.done": "output_index item",
    "response.content_part.added": f"{_TEXT} part",
    "response.content_part.done": f"{_TEXT} part",
    "response.output_text.delta": f"{_TEXT} delta logprobs",
    "response.output_text.done": f"{_TEXT} text logprobs",
    "response.function_call_arguments.delta": f"{_ITEM} delta",
    "response.function_call_arguments.done": f"{_ITEM} name arguments",
    "response.reasoning_summary_part.added": f"{_SUMMARY} part",
    "response.reasoning_summary_part.done": f"{_SUMMARY} part",
    "response.reasoning_summary_text.delta": f"{_SUMMARY} delta",
    "response.reasoning_summary_text.done": f"{_SUMMARY} text",
    "error": "message code param",
}

# Of the response object in every event that has one, and of a whole answer.
RESPONSE = (
    "id object created_at status error incomplete_details instructions max_output_tokens model "
    "output parallel_tool_calls previous_response_id reasoning store temperature text tool_choice "
    "tools top_p truncation usage user metadata"
)

_EVENT_TYPES = {
    get_args(kind.model_fields["type"].annotation)[0]: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
}


def check_event(event: dict[str, Any]) -> None:
    """Check one event. Raises AssertionError or ValidationError for missing parts."""
    kind = event["type"]
    assert_has(event, f"type sequence_number {REQUIRED[kind]}")
    _EVENT_TYPES[kind].model_validate(event)
    if "response" in event:
        check_response(event["response"])


def check_response(response: dict[str, Any]) -> None:
    assert_has(response, RESPONSE)
    Response.model_validate(response)


def assert_has(value: dict[str, Any], names: str) -> None:
    missing = set(names.split()) - value.keys()
    assert not missing, f"{value} lacks {missing}"
