"""What one rule of a diagnosis says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`cause` and `advice` are one line each. A fatal one can't heal without a change of the spec;
    `about` names the object, so that the same trouble is recognised a moment later. `cluster` is
    the RayCluster that it is about, if any; one `on_its_way` passes by itself.
    """

    kind: str
    about: str
    cause: str
    advice: str
    is_fatal: bool = False
    cluster: str = ""
    on_its_way: bool = False
