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
    """The run folder itself, or all run folders in a folder, as a sweep or a cross-validation leaves them.

    Raises:
        InputNotFoundError: no run folder.
    """
    if (path / manifest.FILE).is_file():
        return [path]
    if runs := sorted(file.parent for file in path.glob(f"*/{manifest.FILE}")):
        return runs
    raise InputNotFoundError(f"{path}: expected a run folder, or a folder of run folders")


def method_results(name: str, folders: Sequence[Path], metric: str, best: bool = False) -> MethodResults:
    """A method's results by seed and fold.

    The speed is the median of the runs' last ones. Parameters and steps are None where the runs differ in them.

    Args:
        metric: for example `valid/accuracy`, of the last evaluation.
        best: of the best evaluation instead (`metric` must be the objective): selected on the validation data itself.

    Raises:
        InputNotFoundError, DataError: a folder has no manifest, a run is not DONE, lacks the metric or is a duplicate.
    """
    values: dict[str, float] = {}
    parameters, steps, folds, speeds = set(), set(), set(), []
    for folder in folders:
        fields = manifest.read_manifest(folder)
        if fields["status"] != "DONE":
            raise DataError(f"{folder}: {manifest.effective_status(folder)}; expected a run that is DONE")
        inputs, outcome = fields.get("inputs", {}), fields.get("outcome", {})
        run = f"seed {inputs.get('seed', '?')}" + (f" fold {inputs.get('fold')}" if inputs.get("folds") else "")
        if run in values:
            raise DataError(f"{name}: two runs of {run}, the second is {folder}")
        metrics = {outcome.get("objective", "none"): outcome.get("best")} if best else outcome.get("final", {})
        if (value := metrics.get(metric)) is None:
            known = ", ".join(sorted(metrics)) or "none"
            raise DataError(f"{folder}: expected {'best ' * best}{metric} in its manifest, got {known}")
        values[run] = value
        parameters.add(outcome.get("parameters"))
        steps.add(outcome.get("steps"))
        speeds += [speed] if (speed := outcome.get("speed")) else []
        folds |= {number} if (number := inputs.get("folds")) else set()
    speed = statistics.median(speeds) if speeds else None
    return MethodResults(name, values, _single(parameters), speed, _single(steps), tuple(sorted(folds)))


def _single(values: Collection[T]) -> T | None:
    return next(iter(values)) if len(values) == 1 else None
