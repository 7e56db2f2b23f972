"""Reads the results of run folders from their manifests."""

import statistics
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeVar

from mlxlab.analysis.comparison import MethodResults
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment import manifest

T = TypeVar("T")


def find_runs(path: Path) -> list[Path]:
    """The run folder itself, or all run folders in a folder, such as that of a sweep or a cross-validation.

    Raises:
        InputNotFoundError: no run folder.
    """
    if (path / manifest.FILE).is_file():
        return [path]
    runs = sorted(file.parent for file in path.glob(f"*/{manifest.FILE}"))
    if not runs:
        raise InputNotFoundError(f"{path}: expected a run folder, or a folder of run folders")
    return runs


def method_results(
    name: str, folders: Sequence[Path], metric: str, best: bool = False
) -> tuple[MethodResults, set[int]]:
    """A method's results by seed and fold, and the numbers of folds of its cross-validations.

    The speed is the median of the runs' last ones. Parameters and steps are None where the runs differ in them.

    Args:
        metric: for example `valid/accuracy`, of the last evaluation.
        best: of the best evaluation instead (`metric` must be the objective): selected on the validation data itself.

    Raises:
        InputNotFoundError, DataError: a folder has no manifest, a run is not DONE, lacks the metric or is a duplicate.
    """
    values: dict[str, float] = {}
    parameters, steps, speeds, folds = set(), set(), [], set()
    for folder in folders:
        fields = manifest.read_manifest(folder)
        if fields["status"] != "DONE":
            raise DataError(f"{folder}: {manifest.effective_status(folder)}; expected a run that is DONE")
        inputs = fields.get("inputs", {})
        run = f"seed {inputs.get('seed', '?')}" + (f" fold {inputs.get('fold')}" if inputs.get("folds") else "")
        if run in values:
            raise DataError(f"{name}: two runs of {run}, the second is {folder}")
        outcome = fields.get("outcome", {})
        values[run] = _value(outcome, metric, best, folder)
        parameters.add(outcome.get("parameters"))
        steps.add(outcome.get("steps"))
        speeds += [speed] if (speed := outcome.get("speed")) else []
        folds |= {number} if (number := inputs.get("folds")) else set()
    speed = statistics.median(speeds) if speeds else None
    return MethodResults(name, values, _single(parameters), speed, _single(steps)), folds


def _value(outcome: manifest.Outcome, metric: str, best: bool, folder: Path) -> float:
    final = outcome.get("final", {})
    value = outcome.get("best") if best and outcome.get("objective") == metric else None if best else final.get(metric)
    if not isinstance(value, int | float):
        known = outcome.get("objective", "none") if best else ", ".join(sorted(final)) or "none"
        raise DataError(f"{folder}: expected {'best ' * best}{metric} in its manifest, got {known}")
    return float(value)


def _single(values: Collection[T]) -> T | None:
    return next(iter(values)) if len(values) == 1 else None
