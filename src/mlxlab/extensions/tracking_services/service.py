"""The interface of a tracking service other than MLflow, and of a run in it."""

import re
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from mlxlab.errors import ConfigError, ServiceUnavailableError
from mlxlab.program import install_command
from mlxlab.tracking.destination import TrackingService
from mlxlab.tracking.records import RunStart
from mlxlab.tracking.tracker import Status

Value = str | int | float | bool | None

PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
CONSTANTS: dict[str, Value] = {"True": True, "False": False, "None": None}


class ServiceRun(Protocol):
    """A run that is open in a service.

    Methods raise whatever its client raises: the journal is then sent again.
    """

    def log(self, step: int, metrics: dict[str, float], t: int) -> None:
        """Values at an optimizer step, recorded at `t` ms since 1970."""

    def set_config(self, values: dict[str, Value]) -> None:
        """Adds parameters, tags or the data set to the configuration of the run."""

    def log_artifact(self, folder: Path, path: str, to: str) -> None:
        """A file or folder of the run folder, below `to`; UserError if it cannot be read."""

    def log_model(self, folder: Path, files: dict[str, str], step: int) -> None:
        """The best checkpoint: paths in the run folder by name; UserError if one cannot be read."""

    def end(self, status: Status) -> None:
        """Closes the run; returns when everything has left this process."""


class Service(TrackingService, Protocol):
    """A tracking service; a dataclass of options, none of them secret."""

    @property
    def name(self) -> str:
        """That of the extra of mlxlab, and of the Python package."""

    def options(self) -> dict[str, Value]:
        """The arguments of its class."""

    def open(self, project: Path, start: RunStart) -> ServiceRun:
        """Creates or continues a run; what the service keeps on disk is below `project`."""

    def describe(self) -> str:
        """Where runs are found."""


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


def typed(params: dict[str, str]) -> dict[str, Value]:
    """Parameters of a journal, which are texts, as the numbers and booleans that they were."""
    return {key: _typed(text) for key, text in params.items()}


def _typed(text: str) -> Value:
    if text in CONSTANTS:
        return CONSTANTS[text]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
