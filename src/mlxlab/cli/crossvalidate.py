"""Cross-validates an experiment: folds x seeds runs, and a table of the model and every baseline.

    mlxlab crossvalidate [folds=5] [seeds=3] [jobs=2] [teacher="ARGUMENT ..."] [group=option ...] [key=value ...]

All other arguments are passed to train. Nothing is tracked unless tracking=... is given. The model is evaluated at its
last step, because the best step would be chosen on the fold that evaluates it. The folder is named by the settings, not
by the code: delete it after a change of the code.

Examples
    mlxlab crossvalidate experiment=titanic
    mlxlab crossvalidate experiment=titanic model=transformer seeds=1
    mlxlab crossvalidate experiment=titanic_distilled teacher="experiment=titanic"
"""

import hashlib
import logging
import re
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

from mlxlab import terminal
from mlxlab.analysis.comparison_report import as_json
from mlxlab.analysis.crossvalidation import (
    MODEL,
    STUDENT_ALONE,
    TEACHER,
    plan_folds,
    train_folds,
    write_tables,
)
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.constraints import Ge, Le
from mlxlab.errors import CannotCreateError, ConfigError, RunInterrupted
from mlxlab.nearest import suggestion
from mlxlab.program import display_path

OWN_KEYS = (
    "data.folds",
    "data.fold",
    "seed",
    "resume",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.mode",
)
logger = logging.getLogger(__name__)


def _crossvalidate(
    folds: Annotated[int, Ge(2), Le(400)] = 5,
    seeds: Annotated[int, Ge(1), Le(100)] = 3,
    jobs: Annotated[int, Ge(1), Le(64)] = 2,
    folder: Path = Path("outputs/crossvalidate"),
    teacher: str | None = None,
    json: bool = False,
    *,
    args: list[str],
    command_line: str,
) -> None:
    """Trains the folds that are not finished, and reports on all.

    Args:
        folds: stratified parts of the training rows; each is validated on once.
        seeds: seeds 0, 1, ...; each shuffles the folds and draws the weights differently.
        jobs: runs at a time, each in a process of its own with one thread.
        folder: parent of the folder of this experiment, which is named by its settings: finished runs are not repeated.
        teacher: arguments of train for a teacher, trained first in each fold; students are trained with and without it.
        json: prints JSON instead of tables.
    """
    try:
        teacher_args = shlex.split(teacher or "")
    except ValueError as error:
        raise ConfigError(f"teacher={teacher}: {error}") from None
    _check_args(args)
    if not any(arg.startswith("tracking=") for arg in args):
        args = [*args, "tracking=none"]
    with _stoppable():
        configs = [_config([*each, f"data.folds={folds}"]) for each in (args, teacher_args) if each]
        label = next(
            (arg.partition("=")[2] for arg in args if arg.startswith("experiment=")), "train"
        )
        digest = hashlib.sha256(dumps(configs, sort_keys=True).encode()).hexdigest()[
            :8
        ]  # other settings, another
        folder = project_root() / folder / f"{re.sub(r'[^a-zA-Z0-9]', '_', label)[:60]}-{digest}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotCreateError(
                f"{folder}: {error.strerror or error}; the folder cannot be created"
            ) from None
        runs = {}
        if teacher_args:
            teacher_args += [arg for arg in args if arg.startswith("tracking=")]
            runs[TEACHER] = plan_folds(folder / "teacher", folds, seeds, teacher_args)
            runs[STUDENT_ALONE] = plan_folds(folder / "alone", folds, seeds, args)
        runs[MODEL] = plan_folds(
            folder, folds, seeds, args, folder / "teacher" if teacher_args else None
        )
        for name, fold_runs in runs.items():
            train_folds(fold_runs, jobs, "" if name == MODEL else f"{name}: ")
        text, comparisons = write_tables(runs, folds, folder, command_line)
    if json:
        print_json({name: as_json(comparison) for name, comparison in comparisons.items()})
    else:
        terminal.show(text)
    logger.info(f"report: {display_path(folder / 'table.html')}")


def _check_args(args: list[str]) -> None:
    """Raises ConfigError for a flag, and for keys of train that crossvalidate sets."""
    for arg in args:
        key = arg.partition("=")[0].lstrip("+~")
        if arg.startswith("-"):
            raise ConfigError(f"{arg}: unknown flag{suggestion(arg, ['--help'])}")
        if key == "sweep":
            raise ConfigError(
                f"{arg}: crossvalidate trains one config on all folds, and no sweep; leave it out"
            )
        if key in OWN_KEYS:
            raise ConfigError(
                f"{arg}: crossvalidate sets {key} itself; its options are folds, seeds and folder"
            )


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM end the command after its running folds were stopped."""

    def stop(number: int, _: FrameType | None) -> None:
        raise RunInterrupted("stopped; the same command continues", number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _config(args: list[str]) -> dict[str, Any]:
    """The checked config of every run, except for seed and fold."""
    from mlxlab.config.hydra.compose import Composer

    config = Composer(conf_dir(), args).checked_values(resolve=False)
    for name, node in config["callbacks"].items():
        if node and node.get("patience") is not None:
            expected = "expected null: the validation fold must not choose the number of steps"
            raise ConfigError(f"callbacks.{name}.patience={node['patience']}, {expected}")
    return config


main = build_main(__doc__, Subcommand(_crossvalidate, forwards_overrides=True), needs_args=False)
