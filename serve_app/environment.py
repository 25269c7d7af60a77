"""Reads settings from the environment, where every error names its variable."""

import os
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from serve_app.errors import SettingsError
from serve_app.setting_names import setting_names, unknown

PREFIX = "SERVE_APP_"


class Environment(EnvSettingsSource):
    """Reads the variables of a settings class.

    Raises SettingsError for a list or mapping that is not JSON. It shows no value, which may be
    secret.
    """

    def prepare_field_value(
        self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool
    ) -> Any:
        try:
            return super().prepare_field_value(field_name, field, value, value_is_complex)
        except JSONDecodeError as exc:
            variable = self._variable_with(exc.doc, field_name)
            raise SettingsError(
                f"{variable} is not valid JSON ({exc.msg} at character {exc.pos}): write lists and "
                "mappings as JSON, see docs/settings.md"
            ) from None

    def _variable_with(self, value: str, field_name: str) -> str:
        start = f"{PREFIX}{field_name}".lower()
        variables = self.env_vars.items()
        matching = (name for name, text in variables if name.startswith(start) and text == value)
        return next(matching, start).upper()


def unknown_variables(model: type[BaseModel]) -> Iterator[str]:
    """Yield a sentence for each name like SERVE_APP_MODLES, which must not pass unnoticed."""
    known = [_variable(name) for name in setting_names(model)]
    for name in os.environ:
        if name.startswith(PREFIX) and not _is_known(name.removeprefix(PREFIX).lower(), model):
            yield unknown(name, known, PREFIX)


def _variable(name: str) -> str:
    """Return the environment variable of a setting, without the prefix."""
    return name.replace(".", "__").upper()


def _is_known(name: str, model: type[BaseModel]) -> bool:
    return name.startswith("test_") or name.partition("__")[0] in model.model_fields
