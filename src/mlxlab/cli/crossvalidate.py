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

import logging
import os
import shlex
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from mlxlab.analysis.comparison_runs import output_folder
from mlxlab.analysis.crossvalidation import (
    MODEL,
    STUDENT_ALONE,
    TEACHER,
    plan_folds,
    write_tables,
)
from mlxlab.cli.app import print_result
from mlxlab.errors import ConfigError, RunInterrupted, UserError
from mlxlab.record.attempts import read_job
from mlxlab.schema.constraints import Ge, Le
from mlxlab.terminal import program
from mlxlab.terminal.nearest import suggestion

OWN_KEYS = (
    "data.folds",
    "data.fold",
    "seed",
    "resume",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.mode",
)
SUBDIR = "seed-${seed}-fold-${data.fold}"
logger = logging.getLogger(__name__)


def crossvalidate(
    *overrides: str,
    folds: Annotated[int, Ge(2), Le(400)] = 5,
    seeds: Annotated[int, Ge(1), Le(100)] = 3,
    jobs: Annotated[int, Ge(1), Le(64)] = 2,
    folder: Path = Path("outputs/crossvalidate"),
    teacher: str | None = None,
    json: bool = False,
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
    from mlxlab.files.atomic import make_folder

    args = list(overrides)
    _check_args(args)
    if not any(arg.startswith("tracking=") for arg in args):
        args = [*args, "tracking=none"]
    alone = args
    if teacher_args:
        alone = [*args, "trainer.teachers=[]"]
    configs = [_config(each, folds) for each in (alone, teacher_args) if each]
    typed = [arg.partition("=")[2] for arg in args if arg.startswith("experiment=")]
    folder = output_folder(folder, [*typed, "train"][0], configs)
    make_folder(folder)
    methods = {MODEL: (folder, args)}
    if teacher_args:
        teachers = folder / "teacher"
        last = f"{program.text_value(str(teachers))[:-1]}/{SUBDIR}/checkpoints/last'"
        teacher_args += [arg for arg in args if arg.startswith("tracking=")]
        methods = {
            TEACHER: (teachers, teacher_args),
            STUDENT_ALONE: (folder / "alone", alone),
            MODEL: (folder, [*args, f"trainer.teachers=[{last}]"]),
        }
    runs = {}
    for name, (parent, typed) in methods.items():
        runs[name] = plan_folds(parent, folds, seeds)
        ranges = [f"data.folds={folds}", f"seed=range({seeds})", f"data.fold=range({folds})"]
        _train([*typed, *ranges], jobs, parent)
        _check_runs(runs[name])
    text, comparisons = write_tables(runs, folder, program.command_line())
    print_result({name: asdict(comparison) for name, comparison in comparisons.items()}, text, json)
    logger.info(f"report: {program.display_path(folder / 'table.html')}")


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


def _train(args: list[str], jobs: int, folder: Path) -> None:
    """Trains the folds that are missing in a folder, as a sweep.

    Raises:
        SystemExit: it cannot be run, which it has said itself.
        RunInterrupted: a signal stopped it.
    """
    from mlxlab.cli.train import main as train

    # A BLAS thread each: parallel processes with several threads are slower than running them in sequence.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    own = [
        f"hydra.sweep.dir={program.text_value(str(folder))}",
        f"hydra.sweep.subdir='{SUBDIR}'",
        f"hydra.launcher.n_jobs={jobs}",
        "hydra.callbacks.parent_run.report=false",
    ]
    with redirect_stdout(sys.stderr):
        code = train(["-m", *args, *own])
    if code > 128:
        raise RunInterrupted("stopped; the same command continues", code - 128)
    if code > 1:
        raise SystemExit(code)


def _check_runs(folders: list[Path]) -> None:
    """Raises UserError for the first run that failed, with the exit code of that."""
    for folder in folders:
        record = read_job(folder)
        if record is not None and record.state == "failed":
            error = UserError(f"{folder}: {record.reason}")
            error.exit_code = record.exit_code or UserError.exit_code
            raise error


def _config(args: list[str], folds: int) -> dict[str, Any]:
    """The checked config of every run, except for seed and fold."""
    from mlxlab.config.hydra.compose import compose_checked

    config = compose_checked([*args, f"data.folds={folds}"], resolve=False)
    for name, node in config["callbacks"].items():
        if node and node.get("patience") is not None:
            raise ConfigError(
                f"callbacks.{name}.patience={node['patience']}, "
                "expected null: the validation fold must not choose the number of steps"
            )
    return config
