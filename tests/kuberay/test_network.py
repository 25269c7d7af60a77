"""Network policies, compared with a table of connections, and disruption budgets."""

from pathlib import Path
from typing import Any

import pytest

from tests.kuberay.conftest import SHAPES
from tests.support.manifests import (
    COMPONENTS,
    Object,
    of_kind,
    pods,
    ray_services,
    rendered,
    with_components,
)

# Pods that policies tell apart, with the labels that KubeRay adds to ours.
PODS = {
    "head": {"component": "head", "ray": "head"},
    "worker": {"component": "worker", "ray": "worker"},
    "gateway": {"component": "gateway", "ray": "worker"},
    "cleanup": {"component": "head", "ray": "redis-cleanup"},
    "redis": {"component": "redis"},
    "prepull": {"component": "prepull"},
    "limits": {"component": "limits"},
}
RAY = ("head", "worker", "gateway")
ANY = "any port"
API = "anywhere"
INTERNET = "public addresses"
DNS = "namespace kube-system"
GATEWAY = "gateway.networking.k8s.io/gateway-name"
# Whom a component lets in besides; every other opens nothing.
FRONTS = {
    "ingress": "namespace ingress-nginx",
    "gateway-api": f"pods with {GATEWAY}",
    "incremental-upgrade": f"pods with {GATEWAY}",
}
# Shapes that have one of them.
FRONT_OF = {"production": "ingress", "incremental-upgrade": "incremental-upgrade"}
# Connections that a component opens inside the service.
INSIDE = {
    "limits": {("worker", "limits", 6379), ("gateway", "limits", 6379)},
    "scaling-state": {("head", "limits", 6379)},
}
# Connections that a component opens to others.
OUTSIDE = {"tracing": {(pod, "namespace monitoring", 4318) for pod in ("worker", "gateway")}}
PARTS = [component.name for component in COMPONENTS]


def labels(name: str) -> dict[str, str]:
    known = PODS[name]
    policies = {
        "app.kubernetes.io/part-of": "llm",
        "app.kubernetes.io/component": known["component"],
    }
    return policies | ({"ray.io/node-type": known["ray"]} if "ray" in known else {})


def fits(selector: Object, has: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    match_labels = selector.get("matchLabels", {}).items()
    return match_labels <= has.items() and all(
        _meets(expression, has) for expression in expressions
    )


def _meets(expression: Object, has: dict[str, str]) -> bool:
    if expression["operator"] == "Exists":
        return expression["key"] in has
    assert expression["operator"] == "In"
    return has.get(expression["key"]) in expression["values"]


def peers(rule: Object, key: str) -> set[str]:
    """Return the names of the peers of one rule."""
    if key not in rule:
        return {API}
    return {name for peer in rule[key] for name in _peer(peer)}


def _peer(peer: dict[str, Any]) -> set[str]:
    if "ipBlock" in peer:
        assert peer["ipBlock"]["cidr"] == "0.0.0.0/0"
        assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= set(peer["ipBlock"]["except"])
        return {INTERNET}
    ((kind, selector),) = peer.items()
    match_labels = selector.get("matchLabels", {})
    if kind == "namespaceSelector":
        ((key, value),) = match_labels.items()
        return {f"namespace {value}" if "metadata.name" in key else f"namespaces {key}={value}"}
    if "llm-client" in match_labels:
        return {"pods llm-client=true"}
    if fits(selector, {GATEWAY: "any"}):
        return {f"pods with {GATEWAY}"}
    return {name for name in PODS if fits(selector, labels(name))}


def opened(policies: list[Object], direction: str) -> set[tuple[str, str, str | int]]:
    """Return (pod, peer, port) of all allowed connections."""
    key = {"ingress": "from", "egress": "to"}[direction]
    return {
        (name, peer, port)
        for policy in policies
        for name in PODS
        if fits(policy["spec"]["podSelector"], labels(name))
        for rule in policy["spec"].get(direction, [])
        for peer in peers(rule, key)
        for port in ([entry["port"] for entry in rule.get("ports", [])] or [ANY])
    }


def policies(objects: tuple[Object, ...]) -> list[Object]:
    return of_kind(objects, "NetworkPolicy")


def may_come_in(fronts: set[str]) -> set[tuple[str, str, str | int]]:
    expected: set[tuple[str, str, str | int]] = set()
    for pod in RAY:
        expected |= {(pod, "pods llm-client=true", 8000), (pod, "namespaces llm-client=true", 8000)}
        expected |= {(pod, other, ANY) for other in RAY}
        expected |= {(pod, "namespace monitoring", 8080), (pod, "namespace monitoring", 9101)}
        expected |= {(pod, front, 8000) for front in fronts}
    expected |= {("head", "namespace kuberay-system", port) for port in (8265, 8000)}
    return expected | {("redis", "head", 6379), ("redis", "cleanup", 6379)}


def may_go_out(folder: Path = Path("base")) -> set[tuple[str, str, str | int]]:
    expected: set[tuple[str, str, str | int]] = {(pod, DNS, 53) for pod in PODS}
    expected |= {(pod, other, ANY) for pod in RAY for other in RAY}
    minikubes = {8443} if folder.name == "cpu" else set()
    expected |= {("head", API, port) for port in {443, 6443} | minikubes}
    expected |= {("head", "redis", 6379), ("cleanup", "redis", 6379)}
    return expected | {("worker", INTERNET, 443), ("prepull", INTERNET, 443)}


@pytest.mark.parametrize("folder", SHAPES, ids=str)
def test_exactly_these_may_come_into_a_shape(folder: Path) -> None:
    """Only clients, operator, Ray, Redis's clients, monitoring and front doors may connect."""
    fronts = {FRONTS[FRONT_OF[folder.name]]} if folder.name in FRONT_OF else set()
    assert opened(policies(rendered(folder)), "ingress") == may_come_in(fronts)


@pytest.mark.parametrize("part", PARTS)
def test_exactly_these_may_come_in_with_a_component(part: str) -> None:
    """A component adds only the proxies of its front door."""
    objects = with_components(Path("base"), Path("components") / part)
    fronts = {FRONTS[part]} if part in FRONTS else set()
    inside = {(peer, pod, port) for pod, peer, port in INSIDE.get(part, set())}
    assert opened(policies(objects), "ingress") == may_come_in(fronts) | inside


@pytest.mark.parametrize("folder", SHAPES, ids=str)
def test_exactly_these_may_go_out(folder: Path) -> None:
    """Only DNS, Ray's pods, the API server, Redis and the model registry may be reached."""
    assert opened(policies(rendered(folder)), "egress") == may_go_out(folder)


@pytest.mark.parametrize("part", PARTS)
def test_no_component_lets_more_out(part: str) -> None:
    """Components open no outgoing connections but to what they bring, and to a collector."""
    objects = with_components(Path("base"), Path("components") / part)
    opens = INSIDE.get(part, set()) | OUTSIDE.get(part, set())
    assert opened(policies(objects), "egress") == may_go_out() | opens


def test_nothing_else_is_open(shape: tuple[Object, ...]) -> None:
    """Policies cover every pod in both directions, except the Job that creates the password."""
    (default,) = [p for p in policies(shape) if p["metadata"]["name"] == "llm-default"]
    assert default["spec"]["policyTypes"] == ["Ingress", "Egress"]
    for name, template in pods(shape):
        is_job = name == "Job/llm-redis-password"
        assert fits(default["spec"]["podSelector"], template["metadata"]["labels"]) is not is_job


def test_policies_declare_what_they_open(shape: tuple[Object, ...]) -> None:
    """A policy names the direction of its rules, which otherwise have no effect."""
    for policy in policies(shape):
        rules = {key.capitalize() for key in ("ingress", "egress") if key in policy["spec"]}
        assert rules <= set(policy["spec"]["policyTypes"])


def test_disruption_budgets_are_integers(shape: tuple[Object, ...]) -> None:
    """Others can't be computed for pods of a RayCluster, and would block every drain; so would a
    worker that is not ready."""
    for budget in of_kind(shape, "PodDisruptionBudget"):
        spec = {key: value for key, value in budget["spec"].items() if key != "selector"}
        assert spec == {"minAvailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"}


def test_every_worker_group_has_a_budget_of_its_own(shape: tuple[Object, ...]) -> None:
    """Every worker group has its own budget, and no pod is under two."""
    covered = [
        name
        for budget in of_kind(shape, "PodDisruptionBudget")
        for name, template in pods(shape)
        if fits(budget["spec"]["selector"], template["metadata"]["labels"])
    ]
    (service,) = ray_services(shape)
    assert sorted(covered) == sorted(f"RayService/llm/{group.name}" for group in service.groups)
    assert len(of_kind(shape, "PodDisruptionBudget")) == len(service.groups)
