"""`compare`: methods beside each other, over seeds and folds: who gains, and whether it is more than chance.

    compare.py against=NAME NAME=FOLDER[,FOLDER ...] NAME=FOLDER ... [metric=valid/accuracy] [share_of=NAME]
               [judged=last|best] [out=FOLDER] [experiment=NAME]

NAME=     a method and its runs: run folders, or folders of them such as crossvalidate and sweeps leave
against   the method that the others are compared with
metric    of the evaluations; losses, perplexity and bits per byte are better the lower they are
share_of  the method that is 100 %, a teacher say
judged    by the last evaluation, or by the best one, which the judging rows have chosen
out       folder for comparison.md, .json and .png; the present one if not given
experiment  of MLflow, where the comparison is to be recorded as a run of its own; nowhere if not given

Runs of the same seed and fold are pairs. The test is the paired t; of cross-validations with the variance corrected for
the rows that folds share. Intervals are of 95 %. Where nothing is gained it says so.

Example
    compare.py alone=outputs/alone distilled=outputs/distilled teacher=outputs/teacher against=alone share_of=teacher
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlxlab.cli.app import run_program
from mlxlab.config.paths import project_root
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError, DataError, WriteError

if TYPE_CHECKING:
    from mlxlab.tracking.tracker import Tracker


class Options(NamedTuple):
    """What was typed."""

    methods: dict[str, list[Path]]
    against: str
    metric: str
    share_of: str
    best: bool
    out: Path
    experiment: str


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_program(__doc__, argv, _act)


def _act(words: list[str]) -> None:
    from mlxlab.analysis.comparison import compare, metrics_of
    from mlxlab.analysis.comparison_report import write_comparison
    from mlxlab.analysis.run_results import find_runs, method_results

    asked = parse(words)
    series, folds = [], set()
    for name, paths in asked.methods.items():
        one, seen = method_results(name, [run for path in paths for run in find_runs(path)], asked.metric, asked.best)
        series.append(one)
        folds |= seen
    if len(folds) > 1:
        raise DataError(f"runs of cross-validations with {', '.join(map(str, sorted(folds)))} folds: expected the same")
    comparison = compare(asked.metric, series, asked.against, folds=next(iter(folds), None))
    command = " ".join(["scripts/compare.py", *words])
    try:
        with _recorded(asked, metrics_of(comparison)) as tracker:
            print(write_comparison(comparison, asked.out, share_of=asked.share_of, command=command, tracker=tracker))
    except OSError as error:
        raise WriteError(f"{asked.out}: {error.strerror or error}") from None


@contextmanager
def _recorded(asked: Options, metrics: dict[str, float]) -> "Iterator[Tracker]":
    """A run of the store for the comparison, if that was asked for."""
    from mlxlab.tracking.mlflow.tracker import mlflow_tracker
    from mlxlab.tracking.tracker import NoTracker

    if not asked.experiment:
        yield NoTracker()
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    tracker = mlflow_tracker(None, None, asked.experiment, False, 30.0, folder=asked.out, project=project_root())
    methods = {name: ",".join(map(str, paths)) for name, paths in asked.methods.items()}
    settings = {"methods": methods, "against": asked.against, "metric": asked.metric}
    tracker.start(settings, {"kind": "comparison"}, name=" vs ".join(asked.methods))
    try:
        tracker.log_metrics(0, metrics)
        yield tracker
    finally:
        tracker.end("FINISHED")


def parse(words: Sequence[str]) -> Options:
    """The methods with their folders, and the options.

    Raises:
        ConfigError: a word without `=`, a value that its option may not have, fewer than two methods.
    """
    own = {"against": "", "metric": "valid/accuracy", "share_of": "", "judged": "last", "out": ".", "experiment": ""}
    methods: dict[str, list[Path]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ConfigError(f"{word}: expected NAME=FOLDER, or one of {', '.join(f'{name}=' for name in own)}")
        if key in own:
            own[key] = value
        else:
            methods.setdefault(key, []).extend(Path(part).expanduser() for part in value.split(","))
    if len(methods) < 2:
        raise ConfigError(f"{len(methods)} methods: expected two or more, each as NAME=FOLDER")
    for key in ("against", "share_of"):
        if own[key] not in methods and (own[key] or key == "against"):
            raise ConfigError(f"{key}={own[key]}{suggestion(own[key], list(methods))}; one of {', '.join(methods)}")
    if own["judged"] not in ("last", "best"):
        raise ConfigError(f"judged={own['judged']}: expected last or best")
    best, out = own["judged"] == "best", Path(own["out"]).expanduser()
    return Options(methods, own["against"], own["metric"], own["share_of"], best, out, own["experiment"])
