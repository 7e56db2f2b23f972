"""The options of `tracking.register`: under which name and alias the model of a run enters the model registry."""

import re
from typing import Annotated, TypeAlias, TypedDict

from annotated_types import Predicate

from mlxlab.constraints import NonNegative
from mlxlab.errors import ConfigError

_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_alias = re.compile(r"(?!(?i:latest|v\d+)$)[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
NAME_RULE = "1 to 100 letters, digits, _, - and ., the first a letter or digit"
ALIAS_RULE = "1 to 100 letters, digits, _ and -, the first a letter or digit, not `latest` or `v1`"


def is_name(text: str) -> bool:
    """a name of a registered model"""
    return _name.fullmatch(text) is not None


def is_alias(text: str) -> bool:
    """an alias of a version"""
    return _alias.fullmatch(text) is not None


ModelName: TypeAlias = Annotated[str, Predicate(is_name)]
Alias: TypeAlias = Annotated[str, Predicate(is_alias)]


class RegistrationOptions(TypedDict):
    """Registers the best checkpoint of a run as a new version of a model when the run ends.

    Args:
        name: of the registered model, which is created unless it exists; null registers nothing.
        alias: given to the new version, if it is better than the version that has it; null gives none.
        metric: by which the two versions are compared, at the best step of their runs; null always moves the alias.
        min_improvement: the alias is moved only if the metric is better by more than this.
    """

    name: str | None
    alias: str | None
    metric: str | None
    min_improvement: NonNegative


def check_options(options: RegistrationOptions) -> None:
    """Raises ConfigError if MLflow would refuse the name or the alias."""
    name, alias = options["name"], options["alias"]
    if name is not None and not is_name(name):
        raise ConfigError(f"tracking.register.name={name}: expected {NAME_RULE}")
    if alias is not None and not is_alias(alias):
        raise ConfigError(f"tracking.register.alias={alias}: expected {ALIAS_RULE}")
