"""Cross-validates an experiment: folds x seeds runs, and a table of the model and every baseline.

    mlxlab crossvalidate [folds=5] [seeds=3] [jobs=2] [teacher="WORD ..."] [group=option ...] [key=value ...]

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mlxlab.cli.app import run_command
from mlxlab.cli.args import parse_args
from mlxlab.config.paths import conf_dir, display_path, project_root
from mlxlab.config.suggest import suggestion
from mlxlab.constraints import Ge, Le
from mlxlab.errors import CannotCreateError, ConfigError, RunInterrupted, WriteError
from mlxlab.program import command as program

if TYPE_CHECKING:
    from mlxlab.analysis.crossvalidation import FoldRun

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


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    target = f"{__name__}.CrossvalidateOptions"
    return run_command(__doc__, argv, _act, options=[target], needs_args=False)


def _act(args: list[str]) -> None:
    options, rest = parse(args)
    with _stoppable():
        _crossvalidate(options, rest, split_words(options.teacher))


def split_words(text: str | None) -> list[str]:
    """The arguments of a quoted command line, as a shell splits them."""
    try:
        return shlex.split(text or "")
    except ValueError as error:
        raise ConfigError(f"teacher={text}: {error}") from None


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM end the command after its running fits were stopped."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parse(args: Sequence[str]) -> tuple[CrossvalidateOptions, list[str]]:
    """The options, and the arguments of `train`.

    Raises:
        ConfigError: an invalid option, a flag, or a key that this command sets itself.
    """
    options, _, rest = parse_args(args, CrossvalidateOptions, forward="")
    for word in rest:
        key = word.partition("=")[0].lstrip("+~")
        if word.startswith("-"):
            raise ConfigError(f"{word}: unknown flag{suggestion(word, ['--help'])}")
        if key in OWN_KEYS:
            raise ConfigError(f"{word}: crossvalidate sets {key} itself; its options are folds, seeds and folder")
    tracked = any(word.startswith("tracking=") for word in rest)
    return options, rest if tracked else [*rest, "tracking=none"]


def _crossvalidate(options: CrossvalidateOptions, args: list[str], teacher: list[str]) -> None:
    from mlxlab.analysis.crossvalidation import plan_folds, read_result, teacher_override
    from mlxlab.analysis.fold_table import add_baselines, teacher_note, write_report

    folds, seeds = options.folds, options.seeds
    configs = [_checked([*typed, f"data.folds={folds}"]) for typed in (args, teacher) if typed]
    folder = project_root() / options.folder / _name(configs, args)
    fits = plan_folds(folder, folds, seeds)
    _make(folder)
    notes = ""
    if teacher:
        first, student_alone = plan_folds(folder / "teacher", folds, seeds), plan_folds(folder / "alone", folds, seeds)
        teacher = [*teacher, *(word for word in args if word.startswith("tracking="))]
        _fit(first, options.jobs, lambda fit: fit.command(folds, teacher), "teacher: ")
        _fit(student_alone, options.jobs, lambda fit: fit.command(folds, args), "alone: ")
        _fit(fits, options.jobs, lambda fit: fit.command(folds, [*args, teacher_override(fit, fits, first)]))
    else:
        _fit(fits, options.jobs, lambda fit: fit.command(folds, args))
    results = [result for fit in fits if (result := read_result(fit)) is not None]
    if teacher:
        results = add_baselines(results, {"teacher": first, "student alone": student_alone})
        notes = teacher_note(results, _count_parameters(fits[0]), _count_parameters(first[0]))
    own = [f"teacher={shlex.quote(' '.join(teacher))}"] if teacher else []
    command = " ".join([program("crossvalidate"), *args, *own, f"folds={folds}", f"seeds={seeds}"])
    print(write_report(results, command, folder, notes), flush=True)
    if teacher:
        methods = {"student alone": student_alone, "distilled": fits, "teacher": first}
        print(f"\n{_compared(methods, folds, folder, command)}", flush=True)


def _compared(methods: dict[str, list["FoldRun"]], folds: int, folder: Path, command: str) -> str:
    """Writes comparison.md, .json and .png of the student with and without its teacher."""
    from mlxlab.analysis.comparison import MethodResults, compare
    from mlxlab.analysis.comparison_report import write_comparison
    from mlxlab.analysis.crossvalidation import read_result
    from mlxlab.analysis.run_results import speed_of

    series = []
    for name, fits in methods.items():
        found = {fit.name: result for fit in fits if (result := read_result(fit)) is not None}
        steps = {result.steps for result in found.values()}
        values, speed = {run: result.final for run, result in found.items()}, speed_of([fit.folder for fit in fits])
        series.append(
            MethodResults(name, values, _count_parameters(fits[0]), speed, min(steps) if len(steps) == 1 else None)
        )
    comparison = compare("valid/accuracy", series, "student alone", folds=folds)
    return write_comparison(comparison, folder, share_of="teacher", command=command)


def _count_parameters(run: "FoldRun") -> int:
    from mlxlab.experiment.manifest import read_manifest

    return int(read_manifest(run.folder)["outcome"]["parameters"])


def _fit(fits: Sequence["FoldRun"], jobs: int, command: Callable[["FoldRun"], list[str]], title: str = "") -> None:
    """Trains those that have no result yet, and logs the result of each."""
    from mlxlab.analysis.crossvalidation import read_result, run_all

    missing = [fit for fit in fits if read_result(fit) is None]
    done = len(fits) - len(missing)
    log.info(f"{title}{display_path(fits[0].folder.parent)}: {len(fits)} runs, {done} of them finished already")
    with closing(run_all(missing, command, jobs)) as ended:
        for count, (fit, seconds) in enumerate(ended, done + 1):
            if (result := read_result(fit)) is None:
                raise WriteError(f"{fit.folder}: no accuracy in its metrics.json; expected that of a classification")
            score = f"{result.final:.4f} at step {result.steps}, {seconds:.0f} s"
            log.info(f"{count}/{len(fits)} {title}{fit.name}: {score}")


def _checked(args: list[str]) -> Any:
    """The checked config of every run, except for seed and fold."""
    from omegaconf import OmegaConf

    from mlxlab.config.hydra.compose import Composer, without_hydra

    composer = Composer(conf=conf_dir(), overrides=args)
    config: Any = OmegaConf.to_container(without_hydra(composer.checked(composer.open())), resolve=False)
    for name, node in config["callbacks"].items():
        if node and node.get("patience") is not None:
            expected = "expected null: the validation fold must not choose the number of steps"
            raise ConfigError(f"callbacks.{name}.patience={node['patience']}, {expected}")
    return config


def _name(configs: list[Any], args: list[str]) -> str:
    """The experiment and a digest of all settings: other settings, another folder."""
    label = next((word.partition("=")[2] for word in args if word.startswith("experiment=")), "train")
    digest = hashlib.sha256(
        json.dumps(configs if len(configs) > 1 else configs[0], sort_keys=True).encode()
    ).hexdigest()
    return f"{''.join(c if c.isalnum() else '_' for c in label)[:60]}-{digest[:8]}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotCreateError(f"{folder}: {error.strerror or error}; the folder cannot be created") from None


def _stop(number: int, _: Any) -> None:
    raise RunInterrupted("stopped; the same command continues", number)
