"""What one rule of a diagnosis says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`cause` and `advice` are one line each. A fatal one can't heal without a change of the spec;
    `about` names the object, so that the same trouble is recognised a moment later."""

    kind: str
    about: str
    cause: str
    advice: str
    is_fatal: bool = False
