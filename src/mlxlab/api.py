"""The Python API: compose a config, train it in this process, predict or generate with the model.

    from mlxlab import compose, load, train

    run = train(compose("data=titanic", "model/size=tiny", "tracking=none"))
    load(run.folder).predict([{"PassengerId": 1, ...}])

Every error that the caller can correct is a `mlxlab.errors.UserError`, which a notebook shows as one line.
"""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlxlab.errors import ConfigError, InputNotFoundError, NotAllowedError, UserError
from mlxlab.record.run_file import read_run
from mlxlab.redact import has_credentials, redact, why_refused
from mlxlab.terminal.messages import configure_logging

if TYPE_CHECKING:
    from mlxlab.inference.loaded_model import LoadedModel

T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    """A checked config. `config["trainer.max_steps"]` is one of its values, `str(config)` all of them as YAML."""

    overrides: tuple[str, ...]
    config_dir: Path | None
    _values: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        """The value of a dotted key, as a copy: another value is another override of `compose`."""
        value = self._values
        for name in key.split("."):
            value = value[name]
        return copy.deepcopy(value)

    def __str__(self) -> str:
        import yaml

        return str(yaml.safe_dump(self._values, sort_keys=False))

    __repr__ = __str__


@dataclass(frozen=True)
class TrainedRun:
    """The result of `train`.

    Attributes:
        folder: the run folder.
        best: the best value of the objective.
        metrics: of the evaluation with the best value.
    """

    folder: Path
    best: float
    metrics: dict[str, float | None]


def compose(*overrides: str, config_dir: str | os.PathLike[str] | None = None) -> Config:
    """The config of `mlxlab train` with these overrides, checked.

    Args:
        overrides: as on the command line: `"model=bert"`, `"trainer.max_steps=100"`.
        config_dir: a folder of options of your own, as with `--config-dir`.

    Raises:
        ConfigError: the config is invalid; one line per error, with the nearest valid name.
    """
    from mlxlab.config.hydra.compose import compose_checked

    with _redacted():
        folder = (
            None if config_dir is None else Path(os.path.realpath(os.path.expanduser(config_dir)))
        )
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"config_dir={config_dir}: not a folder of config files")
        for text in overrides:
            if not isinstance(text, str):
                raise ConfigError(f"{text!r}: expected an override as text, such as 'model=bert'")
            if has_credentials(text):
                raise NotAllowedError(f"{text}: {why_refused(text)}")
        values = _composed(compose_checked, overrides, folder)
        return Config(overrides, folder, values)


def train(config: Config) -> TrainedRun:
    """Trains in this process as `mlxlab train` does, in a run folder of its own.

    An interrupt (Ctrl-C, or the stop button of a notebook) finishes the current step and saves; a second one raises
    KeyboardInterrupt in a notebook and ends any other process.

    Raises:
        UserError: what stopped the run; RunInterrupted after an interrupt.
    """
    from mlxlab.config.hydra import compose as hydra_configs
    from mlxlab.experiment.experiment import run_composed

    configure_logging()
    with _redacted():
        composed = _composed(hydra_configs.compose, config.overrides, config.config_dir)
        folder, best = run_composed(composed)
        return TrainedRun(folder, best, _best_metrics(folder))


def load(run: str | os.PathLike[str], checkpoint: str = "best") -> "LoadedModel":
    """The model of a run folder, or of the folder of an ensemble.

    Args:
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.

    Raises:
        InputNotFoundError: there is no such run.
        CheckpointUnavailableError, DataError: it is damaged.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.inference.loaded_model import LoadedModel
    from mlxlab.inference.restore import restore_model
    from mlxlab.ops.native.activation import activate_for_inference

    with _redacted():
        activate_for_inference()
        return LoadedModel(restore_model(Path(os.path.expanduser(run)), checkpoint))


def _composed(
    compose: Callable[[Sequence[str], Path | None], T],
    overrides: Sequence[str],
    config_dir: Path | None,
) -> T:
    """What is composed of overrides and those of the run that they repeat; with options of the resumed run if needed."""
    from mlxlab.experiment.experiment import complete_overrides, resumed_options

    completed = complete_overrides(list(overrides), config_dir)
    try:
        return compose(completed, config_dir)
    except ConfigError:
        if not (options := resumed_options(completed)):
            raise
    return compose([*options, *completed], config_dir)


def _best_metrics(folder: Path) -> dict[str, float | None]:
    try:
        return read_run(folder).evaluation.keyed_metrics("valid")
    except InputNotFoundError:  # several rounds: each has its own
        return {}


@contextmanager
def _redacted() -> Iterator[None]:
    """Removes credentials from messages: they are shown, and notebooks are stored."""
    try:
        yield
    except UserError as error:
        error.args = (redact(str(error)),)
        raise
