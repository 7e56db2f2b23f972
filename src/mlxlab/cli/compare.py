"""Compares methods over seeds and folds: who is better, and whether the difference is significant.

    mlxlab compare baseline=NAME NAME=FOLDER[,FOLDER ...] NAME=FOLDER ... [key=value ...]

NAME=FOLDER is a method and its runs: run folders, or folders of them such as crossvalidate and sweeps leave. Runs of
the same seed and fold are pairs. The test is the paired t-test; for cross-validations with the variance corrected for
the rows that folds share (Nadeau and Bengio 2003). Intervals are 95 %.

Example
    mlxlab compare alone=outputs/alone distilled=outputs/distilled teacher=outputs/teacher baseline=alone
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlxlab.cli.app import run_command
from mlxlab.cli.args import parse_args
from mlxlab.config.paths import project_root
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError, DataError, WriteError
from mlxlab.program import command

if TYPE_CHECKING:
    from mlxlab.tracking.tracker import Tracker


@dataclass(frozen=True)
class CompareOptions:
    """Options of `compare`.

    Args:
        baseline: the method that the others are compared with.
        metric: of the evaluations; losses, perplexity and bits per byte are better the lower they are.
        relative_to: the method whose result is 100 %, a teacher for example.
        evaluation: the last one of a run, or its best one, which the validation rows have chosen.
        out: folder for comparison.md, .json and .png.
        experiment: of MLflow, in which the comparison is recorded as a run of its own.
    """

    baseline: str
    metric: str = "valid/accuracy"
    relative_to: str | None = None
    evaluation: Literal["last", "best"] = "last"
    out: Path = Path()
    experiment: str | None = None


Methods = dict[str, list[Path]]  # name -> run folders


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_command(__doc__, argv, _compare, options=[f"{__name__}.CompareOptions"])


def _compare(args: list[str]) -> None:
    from mlxlab.analysis.comparison import compare, metrics_of
    from mlxlab.analysis.comparison_report import write_comparison
    from mlxlab.analysis.run_results import find_runs, method_results

    options, methods = parse(args)
    series, folds = [], set()
    for name, paths in methods.items():
        runs = [run for path in paths for run in find_runs(path)]
        results, fold_counts = method_results(name, runs, options.metric, options.evaluation == "best")
        series.append(results)
        folds |= fold_counts
    if len(folds) > 1:
        raise DataError(f"runs of cross-validations with {', '.join(map(str, sorted(folds)))} folds: expected the same")
    comparison = compare(options.metric, series, options.baseline, folds=next(iter(folds), None))
    typed = " ".join([command("compare"), *args])
    try:
        with _tracked(options, methods, metrics_of(comparison)) as tracker:
            share_of = options.relative_to or ""
            print(write_comparison(comparison, options.out, share_of=share_of, command=typed, tracker=tracker))
    except OSError as error:
        raise WriteError(f"{options.out}: {error.strerror or error}") from None


@contextmanager
def _tracked(options: CompareOptions, methods: Methods, metrics: dict[str, float]) -> "Iterator[Tracker]":
    """An MLflow run for the comparison, if an experiment is given."""
    from mlxlab.tracking.mlflow.tracker import mlflow_tracker
    from mlxlab.tracking.tracker import NoTracker

    if not options.experiment:
        yield NoTracker()
        return
    options.out.mkdir(parents=True, exist_ok=True)
    tracker = mlflow_tracker(None, None, options.experiment, False, 30.0, folder=options.out, project=project_root())
    folders = {name: ",".join(map(str, paths)) for name, paths in methods.items()}
    settings = {"methods": folders, "baseline": options.baseline, "metric": options.metric}
    tracker.start(settings, {"kind": "comparison"}, name=" vs ".join(methods))
    try:
        tracker.log_metrics(0, metrics)
        yield tracker
    finally:
        tracker.end("FINISHED")


def parse(args: Sequence[str]) -> tuple[CompareOptions, Methods]:
    """The options, and the methods with their folders.

    Raises:
        ConfigError: a word without `=`, an invalid option, fewer than two methods, or an unknown baseline.
    """
    options, _, rest = parse_args(args, CompareOptions, forward="")
    methods: Methods = {}
    for word in rest:
        name, equals, folders = word.partition("=")
        if not equals or not folders or not name:
            raise ConfigError(f"{word}: expected NAME=FOLDER")
        methods.setdefault(name, []).extend(Path(folder).expanduser() for folder in folders.split(","))
    if len(methods) < 2:
        raise ConfigError(f"{len(methods)} methods: expected two or more, each as NAME=FOLDER")
    chosen: tuple[tuple[str, str | None], ...] = (
        ("baseline", options.baseline),
        ("relative_to", options.relative_to),
    )
    for key, value in chosen:
        if value is not None and value not in methods:
            raise ConfigError(f"{key}={value}: expected one of {', '.join(methods)}{suggestion(value, list(methods))}")
    return options, methods
