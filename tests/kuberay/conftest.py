"""Fixtures: every variant of the service, as kubectl renders it."""

import pytest

from tests.support.manifests import KUSTOMIZATIONS, Object, RayService, ray_services, rendered

SHAPES = [folder for folder in KUSTOMIZATIONS if folder.name != "monitoring"]


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[Object, ...]:
    """All objects of one variant."""
    return rendered(request.param)


@pytest.fixture
def service(shape: tuple[Object, ...]) -> RayService:
    (service,) = ray_services(shape)
    return service
