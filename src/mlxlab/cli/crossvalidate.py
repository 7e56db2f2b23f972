"""`crossvalidate`: folds x seeds fits of one experiment, and a table of the model beside every baseline.

    crossvalidate.py [folds=5] [seeds=3] [jobs=2] [folder=outputs/crossvalidate] [teacher="WORD ..."]
                     [group=option ...] [key=value ...]

folds   parts into which the training rows are divided, stratified; each validates once
seeds   seeds 0, 1, ...: each shuffles the folds anew and draws new weights
jobs    fits at a time, each in a process of its own with one thread
folder  where a folder of this experiment is made, named by its settings: fits that are there are not repeated
teacher words of train for a teacher that each fold trains first; the model learns from it, and once more without it

All other words are those of train. Nothing is tracked unless tracking=... says so. The model is judged at its last
step: the best step would be chosen by the very fold that judges. Changed code does not rename the folder: delete it.

Examples
    crossvalidate.py experiment=titanic
    crossvalidate.py experiment=titanic model=transformer seeds=1
    crossvalidate.py experiment=titanic_distilled teacher=experiment=titanic
"""

import hashlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab.config.paths import conf_dir, display_path, project_root
from mlxlab.config.suggest import suggestion
from mlxlab.errors import CannotCreateError, ConfigError, RunInterrupted, UserError, WriteError

if TYPE_CHECKING:
    from mlxlab.analysis.crossvalidation import FoldRun

DEFAULTS = {"folds": 5, "seeds": 3, "jobs": 2}
LIMITS = {"folds": (2, 400), "seeds": (1, 100), "jobs": (1, 64)}
OURS = ("data.folds", "data.fold", "seed", "resume", "hydra.run.dir", "hydra.sweep.dir", "hydra.mode")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help", "help"} & set(words):
        print((__doc__ or "").strip())
        return 0
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        teacher = [shlex.split(word.partition("=")[2]) for word in words if word.startswith("teacher=")]
        numbers, parent, words = parse([word for word in words if not word.startswith("teacher=")])
        return _crossvalidate(numbers, parent, words, [word for given in teacher for word in given])
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parse(words: Sequence[str]) -> tuple[dict[str, int], Path, list[str]]:
    """folds, seeds and jobs; the folder; the words of train.

    Raises:
        ConfigError: a number out of its bounds, a flag, a key that this command sets itself.
    """
    numbers, parent, rest = dict(DEFAULTS), project_root() / "outputs" / "crossvalidate", []
    for word in words:
        key, _, value = word.partition("=")
        if key in numbers:
            low, high = LIMITS[key]
            if not value.isdecimal() or not low <= int(value[:9]) <= high:
                raise ConfigError(f"{word}: want a whole number from {low} to {high}")
            numbers[key] = int(value)
        elif key == "folder" and value:
            parent = Path(value).expanduser().absolute()
        elif word.startswith("-"):
            raise ConfigError(f"{word}: no flag of crossvalidate{suggestion(word, ['--help'])}")
        elif key.lstrip("+~") in OURS:
            raise ConfigError(f"{word}: crossvalidate sets {key.lstrip('+~')} itself; it takes folds, seeds and folder")
        else:
            rest.append(word)
    if not any(word.startswith("tracking=") for word in rest):
        rest.append("tracking=none")
    return numbers, parent, rest


def _crossvalidate(numbers: dict[str, int], parent: Path, words: list[str], teacher: list[str]) -> int:
    from mlxlab.analysis.crossvalidation import plan_folds, read_result, teacher_override
    from mlxlab.analysis.fold_table import add_baselines, teacher_note, write_report

    folds, seeds = numbers["folds"], numbers["seeds"]
    configs = [_checked([*given, f"data.folds={folds}"]) for given in (words, teacher) if given]
    folder = parent / _name(configs, words)
    fits = plan_folds(folder, folds, seeds)
    _make(folder)
    notes = ""
    if teacher:
        first, alone = plan_folds(folder / "teacher", folds, seeds), plan_folds(folder / "alone", folds, seeds)
        teacher = [*teacher, *(word for word in words if word.startswith("tracking="))]
        _fit(first, numbers, lambda fit: fit.command(folds, teacher), "teacher: ")
        _fit(alone, numbers, lambda fit: fit.command(folds, words), "alone: ")
        _fit(fits, numbers, lambda fit: fit.command(folds, [*words, teacher_override(fit, fits, first)]))
    else:
        _fit(fits, numbers, lambda fit: fit.command(folds, words))
    results = [result for fit in fits if (result := read_result(fit)) is not None]
    if teacher:
        results = add_baselines(results, {"teacher": first, "student alone": alone})
        notes = teacher_note(results, _count_parameters(fits[0]), _count_parameters(first[0]))
    own = [f"teacher={shlex.quote(' '.join(teacher))}"] if teacher else []
    command = " ".join(["scripts/crossvalidate.py", *words, *own, f"folds={folds}", f"seeds={seeds}"])
    print(write_report(results, command, folder, notes), flush=True)
    if teacher:
        methods = {"student alone": alone, "distilled": fits, "teacher": first}
        print(f"\n{_compared(methods, folds, folder, command)}", flush=True)
    return 0


def _compared(methods: dict[str, list["FoldRun"]], folds: int, folder: Path, command: str) -> str:
    """Writes comparison.md, .json and .png: is the student better for its teacher?"""
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


def _fit(
    fits: Sequence["FoldRun"], numbers: dict[str, int], command: Callable[["FoldRun"], list[str]], title: str = ""
) -> None:
    """Trains those that have no result yet, and says how each went."""
    from mlxlab.analysis.crossvalidation import read_result, run_all

    missing = [fit for fit in fits if read_result(fit) is None]
    done = len(fits) - len(missing)
    _say(f"{title}{display_path(fits[0].folder.parent)}: {len(fits)} fits, {done} of them there already")
    with closing(run_all(missing, command, numbers["jobs"])) as ended:
        for count, (fit, seconds) in enumerate(ended, done + 1):
            if (result := read_result(fit)) is None:
                raise WriteError(f"{fit.folder}: no accuracy in its metrics.json; expected that of a classification")
            _say(f"{count}/{len(fits)} {title}{fit.name}: {result.final:.4f} at step {result.steps}, {seconds:.0f} s")


def _checked(words: list[str]) -> Any:
    """The config of every fit but for seed and fold, sound in every key."""
    from omegaconf import OmegaConf

    from mlxlab.config.hydra.compose import Composer, without_hydra

    composer = Composer(conf=conf_dir(), overrides=words)
    config: Any = OmegaConf.to_container(without_hydra(composer.checked(composer.open())), resolve=False)
    for name, node in config["callbacks"].items():
        if node and node.get("patience") is not None:
            expected = "expected null: the fold that judges must not choose the number of steps"
            raise ConfigError(f"callbacks.{name}.patience={node['patience']}, {expected}")
    return config


def _name(configs: list[Any], words: list[str]) -> str:
    """Says the experiment and holds a digest of all settings: other settings, another folder."""
    label = next((word.partition("=")[2] for word in words if word.startswith("experiment=")), "train")
    digest = hashlib.sha256(
        json.dumps(configs if len(configs) > 1 else configs[0], sort_keys=True).encode()
    ).hexdigest()
    return f"{''.join(c if c.isalnum() else '_' for c in label)[:60]}-{digest[:8]}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotCreateError(f"{folder}: {error.strerror or error}; the folder cannot be made") from None


def _stop(number: int, _: Any) -> None:
    raise RunInterrupted("stopped; the same command goes on", number)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
