"""`RayServiceApi`: the RayService part of KubeRay's Python client, with typed results and errors.

api = RayServiceApi.connect(namespace="llm")
api.deploy_ray_service(manifests.read("kuberay/rayservice.yaml"))
api.wait_until_ray_service_running("llm")
print(api.get_ray_service_status("llm").diagnosis.state)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from kuberay.access.api_server import ApiServer
from kuberay.access.connection import connect
from kuberay.access.objects import RAY_SERVICES, Objects, Server
from kuberay.access.rehearsal import Rehearsal
from kuberay.changes import clusters, manifests, serve_config, upgrades
from kuberay.changes.bounds import makes_new_cluster
from kuberay.changes.checks import check
from kuberay.changes.edits import Change, Proposal, propose, scaled
from kuberay.changes.effects import NONE, Effects, effects
from kuberay.changes.manifests import Applied
from kuberay.changes.notes import previous_spec
from kuberay.changes.rollout import Rollout
from kuberay.errors import Conflict
from kuberay.json_types import Config, Object
from kuberay.status.diagnosis import Diagnosis, diagnose
from kuberay.status.observed import Observed
from kuberay.status.scaling import NO_SCALING, Scaling
from kuberay.status.waiting import Wait, WaitLimits
from kuberay.status.watched_scaling import read_scaling
from kuberay.status.watching import Watcher, look

_CONFLICTS = 10
_CHANGED = "the spec was changed by another client meanwhile: check the diff and try again"
_TICK_S = 1.0


@dataclass(frozen=True)
class Status:
    """One view of a RayService and its diagnosis."""

    view: Observed
    diagnosis: Diagnosis
    scaling: Scaling = NO_SCALING


class RayServiceApi:
    """Reads and changes the RayServices of one namespace. Every method may raise KubeRayError."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    @classmethod
    def connect(
        cls,
        kubeconfig: str | None = None,
        context: str | None = None,
        namespace: str | None = None,
        request_timeout_s: float = 30.0,
        rehearse: Callable[[str], None] | None = None,
    ) -> "RayServiceApi":
        """Connect with a kubeconfig, or inside a pod with its service account.

        With `rehearse`, changes are validated by the server and passed to it, but not made.
        """
        connection = connect(kubeconfig, context, namespace)
        server: Server = ApiServer(connection.client, request_timeout_s)
        if rehearse:
            server = Rehearsal(server, rehearse)
        return cls(Objects(server, connection.namespace))

    def list_ray_services(self) -> list[Object]:
        return self.objects.list(RAY_SERVICES)[0]

    def get_ray_service(self, name: str) -> Object:
        """Return the object. Raises NotFound."""
        return self.objects.get(RAY_SERVICES, name)

    def get_ray_service_status(self, name: str, admin_key: str = "") -> Status:
        """Observe and diagnose a RayService; the state is `absent` if it does not exist.

        With an admin key of the service, the status includes the scaling of its pools.
        """
        view = look(self.objects, name)
        asks = admin_key and view.service and view.service.endpoints
        scaling = read_scaling(self.objects, name, admin_key) if asks else NO_SCALING
        return Status(view, diagnose(view), scaling)

    def watch_ray_service_status(self, name: str, every_s: float = _TICK_S) -> Iterator[Status]:
        """Yield the status now, on every change, and at least every `every_s` seconds, for ever."""
        with Watcher(self.objects, name) as watcher:
            for view in watcher.views(every_s):
                yield Status(view, diagnose(view))

    def wait_until_ray_service_running(
        self,
        name: str,
        limits: WaitLimits | None = None,
        on_status: Callable[[Status], None] = lambda status: None,
        replaces: bool = False,
    ) -> Status:
        """Wait until the present spec serves completely.

        After a change that `replaces` replicas, the old ones do not count as the new ones.
        Raises CannotHeal, OutOfPatience or WaitTimeout.
        """
        wait = Wait(datetime.now(UTC))
        rollout = Rollout(wait.began_at, is_taken_up=not replaces)
        with Watcher(self.objects, name) as watcher:
            for view in watcher.views(_TICK_S):
                wait, diagnosis, is_serving = wait.judge(view, limits or WaitLimits())
                rollout = rollout.updated(view)
                status = Status(view, diagnosis)
                on_status(status)
                if is_serving and rollout.is_taken_up:
                    return status
        raise AssertionError("Watcher.views() ended")

    def create_ray_service(self, body: Object, dry_run: bool = False) -> Object:
        """Create a RayService. Raises Conflict if it exists, Invalid if the schema forbids it."""
        return self.objects.create(RAY_SERVICES, body, dry_run)

    def deploy_ray_service(self, documents: list[Object]) -> Iterator[Applied]:
        """Apply manifests in order, as `kubectl apply -f` does."""
        for manifest in documents:
            yield from manifests.apply(self.objects, manifest)

    def effects_of(self, manifest: Object) -> Effects:
        """Predict the effects of deploying a RayService. Raises ChangeError, Invalid."""
        name = manifest["metadata"]["name"]
        live = self.objects.find(RAY_SERVICES, name)
        check(_config(manifest["spec"]), _config(live["spec"]) if live else None)
        if live is None:
            return NONE
        after = self.objects.apply(
            RAY_SERVICES, manifest, dry_run=True
        )  # with defaults, as in `live`
        workers = partial(upgrades.workers_now, look(self.objects, name))
        return effects(live["spec"], after["spec"], workers)

    def propose_change(self, name: str, change: Change) -> Proposal:
        """Compute the effects of `change` without making it. Raises ChangeError, Invalid.

        A new cluster starts with as many replicas as the present one has.
        """
        return self._propose(self.get_ray_service(name), change)

    def propose_rollback(self, name: str) -> Proposal:
        """Compute the change back to the spec before the last change. Raises ChangeError."""
        live = self.get_ray_service(name)
        return self._propose(live, upgrades.restored(previous_spec(live)))

    def _propose(self, live: Object, change: Change) -> Proposal:
        proposal = propose(live, change)
        now, then = _config(proposal.before), _config(proposal.after)
        if now != then:
            check(then, now)
        proposal = self._filled(live, proposal)
        view = look(self.objects, proposal.name)
        outcome = effects(proposal.before, proposal.after, partial(upgrades.workers_now, view))
        return replace(self._completed(live, proposal, view), effects=outcome)

    def _completed(self, live: Object, proposal: Proposal, view: Observed) -> Proposal:
        spec = proposal.after
        if not makes_new_cluster(proposal.before, spec):
            drifted = clusters.drifted(self.objects, live, spec)
            return replace(proposal, clusters=tuple(drifted))
        if upgrades.keeps_active(view, spec):
            return proposal
        return propose(live, upgrades.begun(spec, partial(upgrades.size_now, view)))

    def _filled(self, live: Object, proposal: Proposal) -> Proposal:
        """Add the defaults of the API server, which are not changes, to the new spec."""
        if not proposal.changes_spec:
            return proposal
        patch = {"spec": proposal.patch["spec"]}
        filled = self.objects.patch(RAY_SERVICES, proposal.name, patch, dry_run=True)["spec"]
        return propose(live, lambda _: filled)

    def patch_ray_service(self, proposal: Proposal) -> Object:
        """Send the proposed spec, then its bounds to the clusters that stay.

        In this order a rejected spec changes nothing, and no cluster forbids pods whose replicas
        Serve still wants. Replicas that the cluster does not allow yet wait for a moment, because
        Ray's autoscaler tries again every one to five seconds.
        """
        if not proposal.changes_spec:
            live = self.get_ray_service(proposal.name)
        else:
            live = self._patch(proposal)
        if not makes_new_cluster(proposal.before, live["spec"]):
            clusters.mend(self.objects, live)
        return live

    def _patch(self, proposal: Proposal) -> Object:
        """Send the patch; repeat it while only the status, which the operator writes, has changed.

        Raises Conflict if the spec has changed.
        """
        patch = proposal.patch
        for _ in range(_CONFLICTS):
            try:
                return self.objects.patch(RAY_SERVICES, proposal.name, patch)
            except Conflict:
                live = self.get_ray_service(proposal.name)
                if live["spec"] != proposal.before:
                    break
                version = live["metadata"]["resourceVersion"]
                patch = {**patch, "metadata": {**patch["metadata"], "resourceVersion": version}}
        raise Conflict(_CHANGED, 409)

    def delete_ray_service(self, name: str) -> None:
        """Delete the RayService; the operator then deletes its clusters. Raises NotFound.

        `changes.deletion` also deletes its Redis, once the clusters are gone.
        """
        uid = self.get_ray_service(name)["metadata"]["uid"]
        self.objects.delete(RAY_SERVICES, name, uid)

    def scale_ray_service(
        self, name: str, low: int, high: int, deployment: str = "pool", group: str | None = None
    ) -> Object:
        """Change the bounds of replicas and pods in place."""
        change = scaled(low, high, deployment, group=group)
        return self.patch_ray_service(self.propose_change(name, change))

    def rollback_ray_service(self, name: str) -> Object:
        return self.patch_ray_service(self.propose_rollback(name))


def _config(spec: Object) -> Config:
    return serve_config.parse(spec.get("serveConfigV2") or "applications: []")
