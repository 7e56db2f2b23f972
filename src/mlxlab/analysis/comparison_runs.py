"""Results of methods, from the folders of their runs."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

from mlxlab.analysis.comparison import Evaluation, MethodResults
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.experiment import manifest
from mlxlab.experiment.run_metrics import FILE, RunMetrics
from mlxlab.files.untrusted import read_json, refuse_links
from mlxlab.nearest import no_such_folder

FOLDS = "seed-*-fold-*"  # run folders of a cross-validation
_MAX_NAMED = 6


def find_runs(path: Path) -> list[Path]:
    """The run folder itself, or all run folders in a folder, as sweeps leave them, or in that of a cross-validation.

    Raises InputNotFoundError without any, or for the folders of several cross-validations; NotAllowedError for links.
    """
    refuse_links(path)
    if (path / manifest.FILE).is_file():
        return [path]
    if runs := sorted(file.parent for file in path.glob(f"*/{manifest.FILE}")):
        return runs
    expected = "a run folder, or a folder of run folders"
    folders = sorted({file.parents[1] for file in path.glob(f"*/{FOLDS}/{manifest.FILE}")})
    if len(folders) == 1:
        return find_runs(folders[0])
    if folders:
        names = ", ".join(folder.name for folder in folders[:_MAX_NAMED]) + ", ..." * (
            len(folders) > _MAX_NAMED
        )
        raise InputNotFoundError(
            f"{path}: holds {len(folders)} cross-validations, expected the folder of one: {names}"
        )
    raise InputNotFoundError(
        f"{path}: expected {expected}" if path.exists() else no_such_folder(path, expected)
    )


def main_metric(folder: Path) -> str:
    """valid/accuracy, or the objective of a run without it."""
    outcome = manifest.read_manifest(folder).get("outcome", {})
    accuracy = "valid/accuracy"
    return accuracy if accuracy in outcome.get("final", {}) else outcome.get("objective", accuracy)


def metric_names(folder: Path) -> set[str]:
    """The metrics in the manifest of a run."""
    outcome = manifest.read_manifest(folder).get("outcome", {})
    return {*outcome.get("final", {}), *filter(None, [outcome.get("objective")])}


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
        InputNotFoundError, DataError: a folder has no manifest, a run is not DONE, lacks the metric or is a duplicate.
    """
    values: dict[str, float] = {}
    parameters, steps, folds, speeds = set(), set(), set(), []
    for folder in folders:
        fields = _finished(folder)
        inputs, outcome = fields.get("inputs", {}), fields.get("outcome", {})
        run = f"seed {inputs.get('seed', '?')}" + (
            f" fold {inputs.get('fold')}" if inputs.get("folds") else ""
        )
        if run in values:
            raise DataError(f"{name}: two runs of {run}, the second is {folder}")
        values[run] = _value(folder, outcome, metric, evaluation)
        parameters.add(outcome.get("parameters"))
        steps.add(outcome.get("steps"))
        speeds += [speed] if (speed := outcome.get("speed")) else []
        folds |= {number} if (number := inputs.get("folds")) else set()
    size, count = (numbers.pop() if len(numbers) == 1 else None for numbers in (parameters, steps))
    return MethodResults(
        name, values, size, median(speeds) if speeds else None, count, tuple(sorted(folds))
    )


def run_value(folder: Path, metric: str, evaluation: Evaluation) -> float:
    """A metric of a finished run; raises as `method_results`."""
    return _value(folder, _finished(folder).get("outcome", {}), metric, evaluation)


def _finished(folder: Path) -> manifest.Manifest:
    fields = manifest.read_manifest(folder)
    if fields["status"] != "DONE":
        raise DataError(
            f"{folder}: {manifest.effective_status(folder)}; expected a run that is DONE"
        )
    return fields


def _value(folder: Path, outcome: manifest.Outcome, metric: str, evaluation: Evaluation) -> float:
    """A metric of a run; DataError without it."""
    main, final = outcome.get("objective", ""), outcome.get("final", {})
    metrics = _best_metrics(folder, outcome) if evaluation == "best" else final
    if (value := metrics.get(metric)) is not None:
        return value
    known = ", ".join(sorted(metrics, key=lambda key: (key != main, key))) or "none"
    hint = ""
    if evaluation == "best":
        ways = [f"metric={main}"] * (metrics.get(main) is not None) + ["evaluation=last"] * (
            metric in final
        )
        hint = f"; {' or '.join(ways)} works" if ways else ""
    raise DataError(
        f"{folder}: expected {metric} of the {evaluation} evaluation, got {known}{hint}"
    )


def _best_metrics(folder: Path, outcome: manifest.Outcome) -> dict[str, float | None]:
    """Metrics of the best evaluation: all in metrics.json, else the objective."""
    metrics: dict[str, float | None] = {}
    with suppress(InputNotFoundError):
        metrics = dict(read_json(folder / FILE, RunMetrics)["metrics"])
    return metrics | ({outcome["objective"]: outcome.get("best")} if "objective" in outcome else {})
