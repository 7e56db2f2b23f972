"""Run folders as what they came to: series of results that can be compared, read from their manifests."""

import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxlab.analysis.comparison import MethodResults
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment import manifest_file as manifest


def find_runs(path: Path) -> list[Path]:
    """A run folder itself, or all runs right below a folder, as a sweep or a cross-validation leaves them.

    Raises:
        InputNotFoundError: there is no run.
    """
    if (path / manifest.FILE).is_file():
        return [path]
    found = sorted(file.parent for file in path.glob(f"*/{manifest.FILE}"))
    if not found:
        raise InputNotFoundError(f"{path}: no run in it; expected a run folder, or a folder of run folders")
    return found


def method_results(
    name: str, folders: Sequence[Path], metric: str, best: bool = False
) -> tuple[MethodResults, set[int]]:
    """A method's results by seed and fold, and the numbers of folds of its cross-validations.

    Args:
        metric: `valid/accuracy`, say; of the last evaluation.
        best: of the best evaluation instead, where `metric` is the objective: chosen by the rows that judge.

    Raises:
        InputNotFoundError, DataError: a folder has no manifest, a run is not DONE, lacks the metric or is there twice.
    """
    values: dict[str, float] = {}
    sizes, steps = set(), set()
    folds: set[int] = set()
    for folder in folders:
        fields = manifest.read_manifest(folder)
        if fields["status"] != "DONE":
            raise DataError(f"{folder}: {manifest.effective_status(folder)}; expected a run that is DONE")
        run = _name_of(fields)
        if run in values:
            raise DataError(f"{name}: {run} is there twice, the second time in {folder}")
        outcome = fields.get("outcome", {})
        values[run] = _value(outcome, metric, best, folder)
        sizes.add(outcome.get("parameters"))
        steps.add(outcome.get("steps"))
        folds |= {number} if (number := fields.get("folds")) else set()
    return MethodResults(name, values, _single(sizes), speed_of(folders), _single(steps)), folds


def speed_of(folders: Sequence[Path]) -> float | None:
    """The median of the runs' last tokens a second; None where no manifest has it."""
    speeds = []
    for folder in folders:
        with suppress(InputNotFoundError, DataError):
            speeds.append(manifest.read_manifest(folder).get("outcome", {}).get("speed"))
    known = [speed for speed in speeds if speed]
    return statistics.median(known) if known else None


def _name_of(fields: manifest.Manifest) -> str:
    fold = f" fold {fields.get('fold')}" if fields.get("folds") else ""
    return f"seed {fields.get('seed', '?')}{fold}"


def _value(outcome: manifest.Outcome, metric: str, best: bool, folder: Path) -> float:
    final = outcome.get("final", {})
    found = outcome.get("best") if best and outcome.get("objective") == metric else None if best else final.get(metric)
    if not isinstance(found, int | float):
        known = outcome.get("objective", "none") if best else ", ".join(sorted(final)) or "none"
        raise DataError(f"{folder}: no {'best ' * best}{metric} in its manifest; it has {known}")
    return float(found)


def _single(numbers: set[Any]) -> Any:
    """The number that all runs have; None if they differ."""
    return next(iter(numbers)) if len(numbers) == 1 else None
