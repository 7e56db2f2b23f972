"""Cross-validates an experiment: folds x seeds runs, and a table of the model and every baseline.

    mlxlab crossvalidate [folds=5] [seeds=3] [jobs=2] [teacher="ARGUMENT ..."] [group=option ...] [key=value ...]

All other arguments are passed to train. Nothing is tracked unless tracking=... is given. The model is evaluated at its
last step, because the best step would be chosen on the fold that evaluates it. The folder is named by the settings, not
by the code: delete it after a change of the code.

Examples
    mlxlab crossvalidate experiment=titanic
    mlxlab crossvalidate experiment=titanic model=transformer seeds=1
    mlxlab crossvalidate experiment=titanic_distilled teacher=experiment=titanic
"""

import hashlib
import json
import logging
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from mlxlab import program
from mlxlab.cli.app import Action, command
from mlxlab.cli.args import typed_options
from mlxlab.config.paths import display_path, project_root
from mlxlab.config.suggest import suggestion
from mlxlab.constraints import Ge, Le
from mlxlab.errors import CannotCreateError, ConfigError, RunInterrupted, WriteError

if TYPE_CHECKING:
    from mlxlab.analysis.crossvalidation import FoldRun
    from mlxlab.experiment.build import Config

OWN_KEYS = ("data.folds", "data.fold", "seed", "resume", "hydra.run.dir", "hydra.sweep.dir", "hydra.mode")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrossvalidateOptions:
    """Options of `crossvalidate`.

    Args:
        folds: stratified parts of the training rows; each is validated on once.
        seeds: seeds 0, 1, ...; each shuffles the folds and draws the weights differently.
        jobs: runs at a time, each in a process of its own with one thread.
        folder: parent of the folder of this experiment, which is named by its settings: finished runs are not repeated.
        teacher: arguments of train for a teacher, trained first in each fold; students are trained with and without it.
    """

    folds: Annotated[int, Ge(2), Le(400)] = 5
    seeds: Annotated[int, Ge(1), Le(100)] = 3
    jobs: Annotated[int, Ge(1), Le(64)] = 2
    folder: Path = Path("outputs/crossvalidate")
    teacher: str | None = None


def _crossvalidate(options: CrossvalidateOptions, args: list[str]) -> None:
    teacher = _split(options.teacher)
    _check(args)
    if not any(arg.startswith("tracking=") for arg in args):
        args = [*args, "tracking=none"]
    with _stoppable():
        from mlxlab.analysis.crossvalidation import ALONE, MODEL, TEACHER, plan_folds, write_report

        folds, seeds = options.folds, options.seeds
        configs = [_config([*typed, f"data.folds={folds}"]) for typed in (args, teacher) if typed]
        folder = project_root() / options.folder / _name(configs, args)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotCreateError(f"{folder}: {error.strerror or error}; the folder cannot be created") from None
        runs = {}
        if teacher:
            tracking = [arg for arg in args if arg.startswith("tracking=")]
            runs[TEACHER] = plan_folds(folder / "teacher", folds, seeds, [*teacher, *tracking])
            runs[ALONE] = plan_folds(folder / "alone", folds, seeds, args)
        runs[MODEL] = plan_folds(folder, folds, seeds, args, folder / "teacher" if teacher else None)
        for name, fits in runs.items():
            _fit(fits, options.jobs, "" if name == MODEL else f"{name}: ")
        typed = shlex.join([*args, *typed_options(options)])
        print(write_report(runs, folds, folder, f"{program.command('crossvalidate')} {typed}"), flush=True)


def _split(teacher: str | None) -> list[str]:
    """The arguments of a quoted command line, as a shell splits them."""
    try:
        return shlex.split(teacher or "")
    except ValueError as error:
        raise ConfigError(f"teacher={teacher}: {error}") from None


def _check(args: Sequence[str]) -> None:
    """Refuses flags, and keys that this command sets itself."""
    for arg in args:
        key = arg.partition("=")[0].lstrip("+~")
        if arg.startswith("-"):
            raise ConfigError(f"{arg}: unknown flag{suggestion(arg, ['--help'])}")
        if key in OWN_KEYS:
            raise ConfigError(f"{arg}: crossvalidate sets {key} itself; its options are folds, seeds and folder")


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM end the command after its running fits were stopped."""

    def stop(number: int, _: FrameType | None) -> None:
        raise RunInterrupted("stopped; the same command continues", number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _config(args: list[str]) -> "Config":
    """The checked config of every run, except for seed and fold."""
    from mlxlab.cli.hydra_jobs import compose

    config = compose(args, resolve=False)
    for name, node in config["callbacks"].items():
        if node and node.get("patience") is not None:
            expected = "expected null: the validation fold must not choose the number of steps"
            raise ConfigError(f"callbacks.{name}.patience={node['patience']}, {expected}")
    return config


def _name(configs: list["Config"], args: list[str]) -> str:
    """The experiment and a digest of all settings: other settings, another folder."""
    label = next((arg.partition("=")[2] for arg in args if arg.startswith("experiment=")), "train")
    settings = json.dumps(configs if len(configs) > 1 else configs[0], sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()
    return f"{''.join(c if c.isalnum() else '_' for c in label)[:60]}-{digest[:8]}"


def _fit(fits: Sequence["FoldRun"], jobs: int, title: str) -> None:
    """Trains those that have no result yet, and logs the result of each."""
    from mlxlab.analysis.crossvalidation import read_result, run_all

    missing = [fit for fit in fits if read_result(fit) is None]
    done = len(fits) - len(missing)
    log.info(f"{title}{display_path(fits[0].folder.parent)}: {len(fits)} runs, {done} of them finished already")
    with closing(run_all(missing, jobs)) as ended:
        for count, (fit, seconds) in enumerate(ended, done + 1):
            if (result := read_result(fit)) is None:
                raise WriteError(f"{fit.folder}: no accuracy in its metrics.json; expected that of a classification")
            score = f"{result.final:.4f} at step {result.steps}, {seconds:.0f} s"
            log.info(f"{count}/{len(fits)} {title}{fit.name}: {score}")


main = command(__doc__, Action(_crossvalidate, CrossvalidateOptions, forward=""), needs_args=False)
