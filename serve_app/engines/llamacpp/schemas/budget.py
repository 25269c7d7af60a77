"""Bounds the work of rewriting schemas, during which no other request is served."""

from serve_app.engines.llamacpp.schemas.merging import UnsupportedSchema

# A unit of work takes about 10 µs.
MAX_WORK = 25_000


class WorkBudget:
    """The work that is left for the schemas of one request."""

    def __init__(self) -> None:
        self._left = MAX_WORK

    def spend(self, work: int, path: str) -> None:
        """Take `work` from the budget. Raises UnsupportedSchema when nothing is left."""
        self._left -= work
        if self._left < 0:
            raise UnsupportedSchema("part", path, "is too large after its references are followed")
