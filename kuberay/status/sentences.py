"""Shortens long messages of Kubernetes and Ray to the line that matters."""

import re

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_IMAGE = re.compile(r'image "([^"]+)"')
# The scheduler adds the same sentences about preemption and claims to every reason.
_AFTER_REASON = re.compile(r"(?<=\.)\s*(?:no new claims|preemption).*", re.DOTALL)
# The first error of pydantic; the last line of its message is only a link.
_VALIDATION = re.compile(
    r"(\d+ validation errors? for \S+)\n(?:(\S+)\n)?\s+(.+?)(?: \[type=.*)?(?:\n|$)"
)
_BRIEF = 160
_SIGNALS = {130: "SIGINT", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}


def last_line(message: str) -> str:
    """Return the exception of a traceback, or the last line with words of another message."""
    if match := _VALIDATION.search(_ANSI.sub("", message)):
        return ": ".join(filter(None, match.groups()))
    lines = [line.strip() for line in _ANSI.sub("", message).splitlines()]
    return next((line for line in reversed(lines) if re.search(r"\w", line)), "")


def one_line(message: str) -> str:
    return " ".join(_ANSI.sub("", message).split())


def first_sentence(message: str) -> str:
    return re.split(r"(?<=[.!?]) (?=[A-Z])", one_line(message), maxsplit=1)[0]


def scheduler_reason(message: str) -> str:
    """Return the reason only: `0/1 nodes are available: 1 Insufficient nvidia.com/gpu.`"""
    return _AFTER_REASON.sub("", message).strip()


def pull_reason(message: str) -> str:
    """Return the last two links of a chain of errors: `lookup registry: no such host`."""
    return ": ".join(one_line(message).split(": ")[-2:])


def refusal(message: str) -> str:
    """Return the reason of an API server's refusal: `exceeded quota: gpus, requested: …`."""
    return one_line(message.partition("is forbidden: ")[2]) or pull_reason(message)


def brief(message: str) -> str:
    """Return the first sentence, or the end of a long chain of errors, which is the cause."""
    sentence = first_sentence(scheduler_reason(message))
    return sentence if len(sentence) <= _BRIEF else f"… {pull_reason(message)}"


def image_in(message: str) -> str:
    match = _IMAGE.search(message)
    return match[1] if match else ""


def exit_words(exit_code: int, reason: str) -> str:
    """Return `OOMKilled`, `exit code 137, SIGKILL` or `exit code 1`."""
    if reason not in ("", "Error", "Completed"):
        return reason
    signal = _SIGNALS.get(exit_code)
    return f"exit code {exit_code}" + (f", {signal}" if signal else "")
