"""What Weights & Biases and Trackio have in common: checks before a run, and the types of parameters."""

import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec

from mlxlab.errors import ConfigError, ServiceUnavailableError
from mlxlab.terminal.program import install_command
from mlxlab.tracking.records import Number, Record

Value = str | int | float | bool | None

PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
CONSTANTS: dict[str, Value] = {"True": True, "False": False, "None": None}


def check_package(name: str) -> None:
    """Raises ServiceUnavailableError unless the Python package of a service is installed."""
    if find_spec(name) is None:
        raise ServiceUnavailableError(
            f"tracking={name}: needs the package {name}: {install_command(name)}"
        )


def check_project(key: str, name: str) -> None:
    """Raises ConfigError if a service would refuse the name of a project."""
    if not PROJECT.fullmatch(name):
        raise ConfigError(f"{key}={name}: expected 1 to 128 letters, digits, _, - and .")


def config_of(record: Record) -> dict[str, Value]:
    """What a record adds to the configuration of a run: parameters with their types, tags, the data."""
    match record:
        case {"start": start}:
            params = {key: _typed(text) for key, text in start["params"].items()}
            return params | _prefixed("tags", start["tags"])
        case {"tags": tags}:
            return _prefixed("tags", tags)
        case {"dataset": dataset}:
            return _prefixed("dataset", dataset)
    return {}


def floats(metrics: Mapping[str, Number]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items()}


def _prefixed(prefix: str, values: Mapping[str, object]) -> dict[str, Value]:
    return {f"{prefix}.{key}": str(value) for key, value in values.items()}


def _typed(text: str) -> Value:
    """A parameter, which is a text in a journal, as the number or constant that it was."""
    if text in CONSTANTS:
        return CONSTANTS[text]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
