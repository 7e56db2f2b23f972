"""Results of methods from the folders of their runs, and the comparison of them."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import median

from mlxlab.analysis.comparison import Comparison, Evaluation, MethodResults, compare
from mlxlab.analysis.comparison_subject import subject_of
from mlxlab.analysis.output_folder import output_folder
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.files.untrusted import refuse_links
from mlxlab.nearest import no_such_folder
from mlxlab.record.attempts import read_now
from mlxlab.record.run_file import FILE, read_run
from mlxlab.record.run_record import Metrics, RunRecord
from mlxlab.tracking.journal import Journal
from mlxlab.wording import one_line

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


def main_metric(folder: Path) -> str:
    """valid/accuracy, or the objective of a run without it."""
    training = read_run(folder).training
    accuracy = "valid/accuracy"
    if accuracy in training.final or not training.objective:
        return accuracy
    return training.objective


def metric_names(folder: Path) -> set[str]:
    """The metrics of the evaluations of a run."""
    training = read_run(folder).training
    if not training.final:
        return set()
    return {*training.final, training.objective}


def check_metric(metric: str, known: Collection[str], where: str) -> None:
    """Raises ConfigError if the runs have metrics, but not this one."""
    if not known or metric in known:
        return
    listed = ", ".join(sorted(known)[:12])
    raise ConfigError(f"metric={metric}: no such metric of {where}; there is {listed}")


def method_results(
    name: str, folders: Sequence[Path], metric: str, evaluation: Evaluation = "last"
) -> MethodResults:
    """A method's results by seed and fold.

    The speed is the median of the runs' last ones. Parameters and steps are None where the runs differ in them.

    Args:
        metric: for example `valid/accuracy`.
        evaluation: the last one, or the best one by the objective, which was selected on the validation data itself.

    Raises:
        InputNotFoundError, DataError: a folder has no run, a run is not finished, lacks the metric or is a duplicate.
    """
    values: dict[str, float | None] = {}
    records = []
    folds = set()
    for folder in folders:
        record = _finished(folder)
        run = f"seed {record.seed}"
        if record.data.folds:
            run += f" fold {record.data.fold}"
            folds.add(record.data.folds)
        if run in values:
            raise DataError(f"{name}: two runs of {run}, the second is {folder}")
        values[run] = _value(folder, record, metric, evaluation)
        records.append(record)
    speeds = [record.training.speed for record in records if record.training.speed]
    return MethodResults(
        name,
        values,
        parameters=_common([record.model.parameters for record in records]),
        speed=median(speeds) if speeds else None,
        steps=_common([record.training.steps for record in records]),
        folds=tuple(sorted(folds)),
    )


def _common(numbers: list[int]) -> int | None:
    """The number, where all runs have the same."""
    return numbers[0] if len({*numbers}) == 1 else None


def run_value(folder: Path, metric: str, evaluation: Evaluation) -> float:
    """A metric of a finished run; raises as `method_results`."""
    return _value(folder, _finished(folder), metric, evaluation)


def _finished(folder: Path) -> RunRecord:
    record = read_now(folder)
    if record.status != "finished":
        raise DataError(f"{folder}: {record.status}; expected a run that is finished")
    return record


def _value(folder: Path, record: RunRecord, metric: str, evaluation: Evaluation) -> float:
    """A metric of a run; DataError without it."""
    main = record.training.objective
    final = record.training.final
    metrics = _best_metrics(record) if evaluation == "best" else final
    value = metrics.get(metric)
    if value is not None:
        return value
    known = ", ".join(sorted(metrics, key=lambda key: (key != main, key))) or "none"
    ways = []
    if evaluation == "best" and metrics.get(main) is not None:
        ways.append(f"metric={main}")
    if evaluation == "best" and metric in final:
        ways.append("evaluation=last")
    hint = f"; {' or '.join(ways)} works" if ways else ""
    raise DataError(
        f"{folder}: expected {metric} of the {evaluation} evaluation, got {known}{hint}"
    )


def _best_metrics(record: RunRecord) -> Metrics:
    """Metrics of the best evaluation: all of a run that was evaluated at its end, else the objective."""
    metrics = record.evaluation.keyed_metrics("valid")
    if record.training.objective:
        metrics[record.training.objective] = record.training.best
    return metrics


def compare_folders(
    folders: Mapping[str, Sequence[Path]],
    metric: str | None,
    baseline: str,
    evaluation: Evaluation,
) -> Comparison:
    """Compares methods, each of which has run folders, or folders of them.

    Raises:
        ConfigError: no run has the metric.
        InputNotFoundError, DataError: as `find_runs` and `method_results`.
    """
    runs: dict[str, list[Path]] = {}
    known: set[str] = set()
    for name, paths in folders.items():
        try:
            runs[name] = [run for path in paths for run in find_runs(path)]
        except InputNotFoundError as error:
            raise InputNotFoundError(f"{name}={error}") from None
        known.update(*map(metric_names, runs[name]))
    if metric is None:
        metric = main_metric(runs[baseline][0])
    else:
        check_metric(metric, known, "the runs")
    results = [method_results(name, paths, metric, evaluation) for name, paths in runs.items()]
    subject = subject_of(runs, metric, baseline)
    return compare(metric, results, baseline, evaluation, subject)


def comparison_folder(
    folders: Mapping[str, Sequence[Path]], comparison: Comparison, relative_to: str | None
) -> Path:
    """The folder of a comparison: another one for other runs or settings, the same when it is repeated."""
    paths = {name: [str(path.absolute()) for path in paths] for name, paths in folders.items()}
    settings = [comparison.against, comparison.metric, comparison.evaluation, relative_to]
    return output_folder(Path("outputs/comparisons"), "-vs-".join(folders), [paths, settings])


def record_comparison(
    comparison: Comparison,
    folders: Mapping[str, Sequence[Path]],
    files: Sequence[Path],
    folder: Path,
    experiment: str,
) -> None:
    """Records a comparison and its files as a run of an MLflow experiment."""
    tracker = Journal(
        experiment=experiment, log_models=False, wait=30.0, folder=folder, project=project_root()
    )
    params = {
        "methods": {name: ",".join(map(str, paths)) for name, paths in folders.items()},
        "baseline": comparison.against,
        "metric": comparison.metric,
    }
    tracker.start(params, {}, name=" vs ".join(folders))
    tracker.log_metrics(0, comparison.metrics())
    for file in files:
        tracker.log_artifact(file, "comparison")
    tracker.end("FINISHED")
