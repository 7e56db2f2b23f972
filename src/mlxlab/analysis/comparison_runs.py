"""Results of methods from the folders of their runs, and the comparison of them."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import median

from mlxlab.analysis.comparison import Comparison, Evaluation, MethodResults, compare
from mlxlab.analysis.comparison_subject import subject_of
from mlxlab.analysis.output_folder import output_folder
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.files.untrusted import refuse_links
from mlxlab.record.attempts import read_now
from mlxlab.record.run_file import FILE
from mlxlab.terminal.nearest import no_such_folder
from mlxlab.terminal.wording import one_line
from mlxlab.views.run_view import RunView

ACCURACY = "valid/accuracy"
FOLDS = "seed-*-fold-*"  # run folders of a cross-validation


def find_runs(path: Path) -> list[Path]:
    """The run folder itself, or all run folders in a folder, as sweeps leave them, or in that of a cross-validation.

    Raises InputNotFoundError without any, or for the folders of several cross-validations; NotAllowedError for links.
    """
    refuse_links(path)
    if (path / FILE).is_file():
        return [path]
    runs = sorted(file.parent for file in path.glob(f"*/{FILE}"))
    if runs:
        return runs
    expected = "a run folder, or a folder of run folders"
    folders = sorted({file.parents[1] for file in path.glob(f"*/{FOLDS}/{FILE}")})
    if len(folders) == 1:
        return find_runs(folders[0])
    if folders:
        names = one_line(", ".join(folder.name for folder in folders), 200)
        raise InputNotFoundError(
            f"{path}: holds {len(folders)} cross-validations, expected the folder of one: {names}"
        )
    raise InputNotFoundError(
        f"{path}: expected {expected}" if path.exists() else no_such_folder(path, expected)
    )


def read_finished(folder: Path) -> RunView:
    """A finished run; InputNotFoundError or DataError without one."""
    record = read_now(folder)
    if record.status != "finished":
        raise DataError(f"{folder}: {record.status}; expected a run that is finished")
    return RunView(record, folder)


def check_metric(metric: str, known: Collection[str], where: str) -> None:
    """Raises ConfigError if the runs have metrics, but not this one."""
    if not known or metric in known:
        return
    listed = ", ".join(sorted(known)[:12])
    raise ConfigError(f"metric={metric}: no such metric of {where}; there is {listed}")


def method_results(
    name: str, runs: Sequence[RunView], metric: str, evaluation: Evaluation = "last"
) -> MethodResults:
    """A method's results by seed and fold.

    The speed is the median of the runs' last ones. Parameters and steps are None where the runs differ in them.

    Args:
        metric: for example `valid/accuracy`.
        evaluation: the last one, or the best one by the objective, which was selected on the validation data itself.

    Raises:
        DataError: a run lacks the metric or is a duplicate.
    """
    values: dict[str, float | None] = {}
    for run in runs:
        key = run_key(run)
        if key in values:
            raise DataError(f"{name}: two runs of {key}, the second is {run.folder}")
        values[key] = metric_of(run, metric, evaluation)
    records = [run.record for run in runs]
    speeds = [record.training.speed for record in records if record.training.speed]
    return MethodResults(
        name,
        values,
        parameters=_common([record.model.parameters for record in records]),
        speed=median(speeds) if speeds else None,
        steps=_common([record.training.steps for record in records]),
        folds=tuple(sorted({record.data.folds for record in records if record.data.folds})),
    )


def run_key(run: RunView) -> str:
    """What runs of two methods have in common that are a pair: `seed 0 fold 1`."""
    key = f"seed {run.record.seed}"
    if run.record.data.folds:
        key += f" fold {run.record.data.fold}"
    return key


def _common(numbers: list[int]) -> int | None:
    """The number, where all runs have the same."""
    return numbers[0] if len({*numbers}) == 1 else None


def metric_of(run: RunView, metric: str, evaluation: Evaluation) -> float:
    """A metric of a run; DataError without it."""
    training = run.record.training
    metrics = training.final
    if evaluation == "best":
        # A run that was evaluated at its end has all metrics, others the objective.
        metrics = run.record.evaluation.keyed_metrics("valid")
        if training.objective:
            metrics[training.objective] = training.best
    value = metrics.get(metric)
    if value is None:
        known = ", ".join(sorted(metrics)) or "none"
        raise DataError(
            f"{run.folder}: expected {metric} of the {evaluation} evaluation, got {known}"
        )
    return value


def compare_folders(
    folders: Mapping[str, Sequence[Path]],
    metric: str | None,
    baseline: str,
    evaluation: Evaluation,
) -> Comparison:
    """Compares methods, each of which has run folders, or folders of them.

    Raises:
        ConfigError: no run has the metric.
        InputNotFoundError, DataError: as `find_runs`, `read_finished` and `method_results`.
    """
    methods: dict[str, list[RunView]] = {}
    for name, paths in folders.items():
        try:
            methods[name] = [read_finished(run) for path in paths for run in find_runs(path)]
        except InputNotFoundError as error:
            raise InputNotFoundError(f"{name}={error}") from None
    first = methods[baseline][0].record.training
    if metric is None:
        metric = ACCURACY
        if metric not in first.final and first.objective:
            metric = first.objective
    else:
        trainings = [run.record.training for runs in methods.values() for run in runs]
        known = {name for each in trainings for name in (*each.final, each.objective)}
        check_metric(metric, known - {""}, "the runs")
    results = [method_results(name, runs, metric, evaluation) for name, runs in methods.items()]
    subject = subject_of(methods, metric, methods[baseline])
    return compare(metric, results, baseline, evaluation, subject)


def comparison_folder(
    folders: Mapping[str, Sequence[Path]], comparison: Comparison, relative_to: str | None
) -> Path:
    """The folder of a comparison: another one for other runs or settings, the same when it is repeated."""
    paths = {name: [str(path.absolute()) for path in paths] for name, paths in folders.items()}
    settings = [comparison.against, comparison.metric, comparison.evaluation, relative_to]
    return output_folder(Path("outputs/comparisons"), "-vs-".join(folders), [paths, settings])
