"""Rules about the RayService, its clusters and its applications.

A rule yields findings about one kind of problem.
"""

import re
from collections.abc import Iterator
from datetime import timedelta

from kuberay.status.advice import command, deploy, kubectl
from kuberay.status.events import cluster_of, latest
from kuberay.status.finding import Finding
from kuberay.status.observed import HEAD, Application, Observed, Serving
from kuberay.status.sentences import brief, last_line, one_line, pull_reason, refusal
from serve_app.fleet.advice import NEEDS_WORKER, deployment_advice

_OPERATOR_WITHIN = timedelta(seconds=20)
_HEAD_STARTS = timedelta(seconds=15)
# Of the operator, and of Kubernetes' own controllers (Redis, Jobs).
_CREATED = {"CreatedHeadPod", "CreatedWorkerPod", "CreatedRayCluster", "SuccessfulCreate"}
_NOT_CREATED = {
    "FailedToCreateHeadPod",
    "FailedToCreateWorkerPod",
    "FailedToCreateRayCluster",
    "FailedCreate",
}


def invalid_spec(observed: Observed) -> Iterator[Finding]:
    """Find specs that the operator rejects, or has given up on."""
    service = observed.service
    ready = service.condition("Ready") if service else None
    if service is None or ready is None or ready.generation < service.generation:
        return
    if ready.reason == "ValidationFailed":
        advice = "correct the manifest and deploy it again"
        yield Finding(
            "invalid", service.name, f"invalid spec: {one_line(ready.message)}", advice, True
        )
    if ready.reason == "InitializingTimeout":
        advice = "find the cause below, then delete the RayService and deploy it again"
        cause = f"the operator gave up: {one_line(ready.message)}"
        yield Finding("gave-up", service.name, cause, advice, True)


def suspended(observed: Observed) -> Iterator[Finding]:
    """Find a RayService that is suspended."""
    if observed.service and observed.service.is_suspended:
        advice = "set spec.suspend to false and deploy again"
        yield Finding(
            "suspended", observed.service.name, "the RayService is suspended", advice, True
        )


def failed_applications(observed: Observed) -> Iterator[Finding]:
    """Find applications that Serve could not build or start, which need a new spec."""
    service = observed.service
    if service is None or not service.is_observed:
        return
    for serving in (service.pending, service.active):
        for application in serving.applications:
            if application.status == "DEPLOY_FAILED":
                yield _failed(application, serving, observed)


def _failed(application: Application, serving: Serving, observed: Observed) -> Finding:
    name, cluster = application.name, serving.cluster
    messages = [
        d.message for d in application.deployments if d.status == "DEPLOY_FAILED" and d.message
    ]
    cause = f"application {name}: {last_line(messages[0] if messages else application.message)}"
    if cluster == observed.replaced:
        about, advice = f"{name} of {cluster}", f"wait for {observed.current[0]}, which replaces it"
        return Finding("deploy-failed", about, f"{cause} (in {cluster})", advice, cluster=cluster)
    config, upgrade = (
        command(observed, "update-config FILE"),
        command(observed, "upgrade --image IMAGE"),
    )
    advice = f"correct import_path, args or code; then {config}, or {upgrade}"
    if re.search("ModuleNotFoundError|ImportError|has no attribute", cause):
        advice = f"correct import_path; then {config}; or use an image that has it: {upgrade}"
    elif "validation error" in cause:
        advice = f"correct args in serveConfigV2; then {config}"
    if observed.replaced:
        advice = f"{observed.replaced} still serves: {command(observed, 'rollback')}, or {advice}"
    return Finding("deploy-failed", name, cause, advice, True, cluster=cluster)


def no_operator(observed: Observed) -> Iterator[Finding]:
    """Find RayServices that no operator has handled."""
    service = observed.service
    if service is None or service.observed_generation or service.conditions:
        return
    if observed.at - service.created_at > _OPERATOR_WITHIN:
        cause = "no operator handles the RayService"
        advice = "install the KubeRay operator, or let it watch this namespace"
        yield Finding("no-operator", service.name, cause, advice)


def not_created(observed: Observed) -> Iterator[Finding]:
    """Find pods that the API server refuses: by a quota, a policy or an admission webhook."""
    for event in latest(observed, _NOT_CREATED | _CREATED):
        if event.reason in _NOT_CREATED:
            cause = f"no pod can be created for {event.name}: {refusal(event.message)}"
            advice = _creation_advice(event.message, observed)
            yield Finding("not-created", event.name, cause, advice, cluster=cluster_of(event))


def _creation_advice(message: str, observed: Observed) -> str:
    if "serviceaccount" in message:
        return f"wait: its ServiceAccount comes with the same manifest; else {deploy(observed)}"
    if "exceeded quota" in message or "must specify" in message:
        look = kubectl(observed, "describe resourcequota")
        return f"raise the namespace's quota, or request less; to see its use: {look}"
    if "violates PodSecurity" in message:
        look = "kubectl get namespace --show-labels"
        return f"correct the pod's securityContext, or the namespace's pod security level: {look}"
    if "admission webhook" in message:
        return "change what the admission webhook refuses, or ask its owner"
    if "minimum" in message or "maximum" in message:
        look = kubectl(observed, "describe limitrange")
        return f"change the requests or the namespace's limits: {look}"
    return "check the namespace's quotas, pod security level and webhooks"


def heads(observed: Observed) -> Iterator[Finding]:
    """Find an active cluster without a head: its workers answer, but nothing scales."""
    service = observed.service
    if service is None or not service.active.cluster or service.is_deleting:
        return
    active_pods = [p for p in observed.pods if p.cluster == service.active.cluster]
    if active_pods and not any(p.role == HEAD and p.is_ready for p in active_pods):
        cause = f"the head of {service.active.cluster} is not ready, so nothing scales"
        log = command(observed, "logs head")
        advice = f"wait: it restarts while workers serve on; if it does not, read its log: {log}"
        cluster = service.active.cluster
        yield Finding("head", cluster, cause, advice, cluster=cluster)


def refused_configs(observed: Observed) -> Iterator[Finding]:
    """Find Serve configs that Ray's dashboard rejects, except while the head starts."""
    last = latest(observed, {"FailedToUpdateServeApplications", "UpdatedServeApplications"})
    for event in last:
        if event.is_warning and observed.at - event.at > _HEAD_STARTS:
            cause = f"Ray does not accept the Serve config: {pull_reason(event.message)}"
            advice = "if this persists, correct serveConfigV2, or let the operator reach port 8265"
            cluster = cluster_of(event)
            yield Finding("config-refused", event.name, cause, advice, cluster=cluster)


def deployments(observed: Observed) -> Iterator[Finding]:
    """Find deployments about which Serve has a message."""
    service = observed.service
    for serving in (service.pending, service.active) if service else ():
        for application in serving.applications:
            for deployment in application.deployments:
                if deployment.message and deployment.status not in ("HEALTHY", "DEPLOY_FAILED"):
                    message = _brief_cause(deployment.message)
                    cause = f"deployment {deployment.name} is {deployment.status}: {message}"
                    advice = deployment_advice(deployment.message) or NEEDS_WORKER
                    yield Finding(
                        "deployment", deployment.name, cause, advice, cluster=serving.cluster
                    )


def _brief_cause(message: str) -> str:
    return last_line(message) if "Traceback" in message else brief(message)
