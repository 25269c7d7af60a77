"""The result of a rule of the diagnosis."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A problem: `cause` and `advice` are one line each.

    `about` names the object, by which the same problem is recognised later, and `cluster` its
    RayCluster, if any. A fatal problem needs a change of the spec; one `on_its_way` to its end
    passes by itself.
    """

    kind: str
    about: str
    cause: str
    advice: str
    is_fatal: bool = False
    cluster: str = ""
    on_its_way: bool = False
