"""Every deliberate difference between this service and Ollama, and why. There are no others:
`test_front_door.py` asks every recorded request and finds either Ollama's answer or one of these.
(What the engines that we bring leave out of Ollama stands in their own tests, `tests/engines`.)
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """`names` matches the recordings that it is about; `status` is what the service says there."""

    names: str
    status: int
    reason: str

    def covers(self, name: str) -> bool:
        return re.fullmatch(self.names, name) is not None


STATUS = (
    Difference(
        ".*_bad_utf8_content|.*_trailing_garbage",
        400,
        "what Ollama reads in spite of itself could mean something else to engine and gate",
    ),
    Difference(".*_zstd_body", 400, "a compressed body could unpack to any size; nobody sends one"),
    Difference(
        "error_http_(double_slash.*|percent_path|tags_slash)|.*_trailing_slash",
        404,
        "one path, one meaning: an unclean one is unknown instead of redirected",
    ),
    Difference(
        "error_http_(copy|delete)_unknown|error_pull_.*",
        403,
        "models are managed by the operator, not over the API",
    ),
    Difference(
        "native_pull_model_name_bad|error_http_cloud_model",
        404,
        "a name that is not configured is not found, whatever else is wrong with it",
    ),
    Difference(
        "native_status|openai_audio_transcriptions",
        404,
        "accounts, clouds and audio are not served",
    ),
    Difference(
        "error_.*_missing_model",
        400,
        "a request without a model is the caller's mistake on every route, not only on some",
    ),
    Difference(
        "error_.*_(bad_format|format_.*|wrong_option_type|options_.*)|native_.*_format_bad.*",
        400,
        "the client's own mistake, for which Ollama blames itself with a 500",
    ),
    Difference(
        "openai_responses_no_input",
        502,
        "output but zero tokens is how Ollama ends a broken Responses answer too",
    ),
)
# Seen in bodies and headers, where the status is the same.
OTHER = {
    "text/plain errors": "404 and 405 are JSON in the dialect of the path: clients parse errors",
    "charset": "our own answers always say `; charset=utf-8`, Ollama's only sometimes",
    "words": "of an error that the service finds itself: its own, and in Ollama's form",
    "framing": "a whole answer has a Content-Length where Ollama sends what is over 2 KB in chunks",
    "end of line": "Ollama's compatible routes end some of their JSON with one; ours do not",
    "model": "an answer echoes the canonical name, whatever spelling was asked for",
    "max_completion_tokens": "Ollama ignores it; here it bounds the answer as OpenAI says it does",
    "413": "Ollama reads bodies of any size; here `max_body_mib` bounds them",
}
# The engine before which these are asked can't show them; a real one does.
NO_EYES = "native_(chat|generate)_images_.*|openai_chat_image_data"
# A state that the service does not have: its models stay loaded.
UNLOADED = "native_ps_(empty|after_unload)"
