"""Long messages of machines, cut to the one line that a person needs."""

import re

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_IMAGE = re.compile(r'image "([^"]+)"')
# What the scheduler says after its reason is about preemption and claims, always the same.
_AFTER_REASON = re.compile(r"(?<=\.)\s*(?:no new claims|preemption).*", re.DOTALL)
# Of pydantic's errors what is wrong first; their last line is a link.
_VALIDATION = re.compile(
    r"(\d+ validation errors? for \S+)\n(?:(\S+)\n)?\s+(.+?)(?: \[type=.*)?(?:\n|$)"
)
_BRIEF = 160
_SIGNALS = {130: "SIGINT", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}


def last_line(message: str) -> str:
    """Of a traceback the exception; of anything else its last line with words in it."""
    if found := _VALIDATION.search(_ANSI.sub("", message)):
        return ": ".join(filter(None, found.groups()))
    lines = [line.strip() for line in _ANSI.sub("", message).splitlines()]
    return next((line for line in reversed(lines) if re.search(r"\w", line)), "")


def one_line(message: str) -> str:
    return " ".join(_ANSI.sub("", message).split())


def first_sentence(message: str) -> str:
    return re.split(r"(?<=[.!?]) (?=[A-Z])", one_line(message), maxsplit=1)[0]


def scheduler_reason(message: str) -> str:
    """`0/1 nodes are available: 1 Insufficient nvidia.com/gpu.`"""
    return _AFTER_REASON.sub("", message).strip()


def pull_reason(message: str) -> str:
    """`dial tcp: lookup registry: no such host`, of a chain of errors its last two links."""
    return ": ".join(one_line(message).split(": ")[-2:])


def refusal(message: str) -> str:
    """Of an API server's refusal what it is about: `exceeded quota: gpus, requested: …`."""
    return one_line(message.partition("is forbidden: ")[2]) or pull_reason(message)


def brief(message: str) -> str:
    """The first sentence; of a long chain of errors its end, which is the cause."""
    sentence = first_sentence(scheduler_reason(message))
    return sentence if len(sentence) <= _BRIEF else f"… {pull_reason(message)}"


def image_in(message: str) -> str:
    found = _IMAGE.search(message)
    return found[1] if found else ""


def exit_words(exit_code: int, reason: str) -> str:
    """`OOMKilled`, `exit code 137, SIGKILL`, `exit code 1`."""
    if reason not in ("", "Error", "Completed"):
        return reason
    signal = _SIGNALS.get(exit_code)
    return f"exit code {exit_code}" + (f", {signal}" if signal else "")
