"""A running service with the page, before scripted models and a stage."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from serve_app.api.build import build_api
from serve_app.settings import Settings
from tests.support.fleets import Stage
from tests.support.scenes import empty
from tests.support.scripted_models import ScriptedModels, scripts
from tests.support.service import Noted, listening


class Site:
    """A running service with a page, its stage, its models."""

    def __init__(self, url: str, stage: Stage, models: ScriptedModels) -> None:
        self.url = url
        self.stage = stage
        self.models = models


@asynccontextmanager
async def site(port: int = 0, **settings: Any) -> AsyncIterator[Site]:
    stage, models = Stage(empty()), ScriptedModels(scripts())
    stage.show(with_models(empty(), models))
    built = Settings(models=tuple(scripts()), engine={"kind": "simulated"}, **settings)

    async def stop() -> None:
        """Do nothing: nothing runs."""

    api = build_api(built, models, Noted(), stop, fleet=stage)
    async with listening(api, port) as url:
        yield Site(url, stage, models)


def with_models(document: dict[str, Any], models: ScriptedModels) -> dict[str, Any]:
    (known,) = document["models"]
    return {**document, "models": [{**known, "name": card.name} for card in models.cards()]}
