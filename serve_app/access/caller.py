"""The caller of one request, with the policy in force."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from serve_app.access.limits.quotas import Quota
from serve_app.access.policies import UNLIMITED, Limits
from serve_app.engines.base import Flow, Priority
from serve_app.model_names import plain_name


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request. Its name is a key's, `jwt:<name>`, or "" where there are no keys.

    `models`: allowed names or patterns (see `model_names`); None: every model.
    """

    name: str = ""
    group: str = ""
    limits: Limits = UNLIMITED  # of the key alone
    group_limits: Limits = UNLIMITED  # of all keys of the group together
    models: tuple[str, ...] | None = None
    priority: Priority = Priority.STANDARD
    weight: float = 1.0
    group_weight: float = 1.0
    admin: bool = False
    quotas: tuple[Quota, ...] = field(init=False, repr=False, compare=False)
    flow: Flow = field(init=False, repr=False, compare=False)  # the place in queues

    def __post_init__(self) -> None:
        """Derive `quotas` and `flow` once, because every request needs them."""
        own = Quota.of(f"k:{self.name}", self.limits)
        groups = Quota.of(f"g:{self.group}", self.group_limits)
        object.__setattr__(self, "quotas", tuple([quota for quota in (own, groups) if quota]))
        flow = Flow(self.name, self.group, self.weight, self.group_weight, self.priority)
        object.__setattr__(self, "flow", flow)

    def may_use(self, name: str) -> bool:
        """Tell whether the caller may use the model or alias of this canonical name."""
        if self.models is None or name in self.models:
            return True
        plain = plain_name(name)
        return any(fnmatchcase(plain, pattern) for pattern in self.models)


ANONYMOUS = Caller()
