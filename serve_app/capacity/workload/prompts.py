"""Texts of about n tokens, and growing conversations.

The words are short and common, so that most tokenizers encode each as one token; the simulated
engine counts words. Equal seeds give equal texts, and texts of one seed have a common prefix.
"""

import random
from dataclasses import dataclass, field

from serve_app.capacity.workload.requests import WorkloadRequest

BLOCK_TOKENS = 512

_VOCABULARY = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work government "
    "number night point home water room mother area money story fact month lot right study book "
    "eye job word business issue side kind head house service friend father power hour game line "
    "end member law car city name team minute idea body back parent face others level office door "
    "health person art war history party result change morning reason research girl guy moment air "
    "teacher force education"
)
_WORDS = _VOCABULARY.split()

Messages = list[dict[str, str]]


def random_words(tokens: int, seed: int | str = 0) -> str:
    """Generate `tokens` words. A shorter text of the same seed is a prefix of a longer one."""
    return " ".join(random.Random(f"text {seed}").choices(_WORDS, k=max(1, tokens)))


def prompt(request: WorkloadRequest, seed: int = 0) -> str:
    """Generate the whole prompt of a request. Equal blocks give equal prefixes."""
    if not request.blocks:
        own = f"{seed} {request.session}" if request.session else f"{seed} {request.at_s!r}"
        return random_words(request.prompt_tokens, own)
    blocks = " ".join(random_words(BLOCK_TOKENS, f"block {block}") for block in request.blocks)
    return " ".join(blocks.split(" ")[: request.prompt_tokens])


@dataclass(slots=True)
class Conversation:
    """A conversation that resends its history. Call `ask` and `answered` in turn."""

    seed: int | str
    messages: Messages = field(default_factory=list)
    turn: int = 0

    def ask(self, tokens: int) -> Messages:
        """Append a question of `tokens` tokens and return the history."""
        self.messages.append(
            {"role": "user", "content": random_words(tokens, f"{self.seed} {self.turn}")}
        )
        self.turn += 1
        return list(self.messages)

    def answered(self, content: str) -> None:
        self.messages.append({"role": "assistant", "content": content})

    def failed(self) -> None:
        """Remove the last question, which got no answer, from the history."""
        self.messages.pop()
