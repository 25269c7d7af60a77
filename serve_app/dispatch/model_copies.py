"""Finds loaded models of a replica that another replica of its pool keeps loaded too."""

from collections.abc import Mapping, Set


def spare_copies(held: Mapping[str, Set[str]]) -> dict[str, frozenset[str]]:
    """Return each replica's loaded models of which another replica keeps a copy.

    `held`: the loaded models by replica. The first replica by name keeps its copy; otherwise two
    replicas could unload their copies at the same time.
    """
    keepers: dict[str, str] = {}
    for replica in sorted(held):
        for model in held[replica]:
            keepers.setdefault(model, replica)
    return {
        replica: frozenset([model for model in models if keepers[model] != replica])
        for replica, models in held.items()
    }
