"""A run as its folder describes it, in the form in which stores are read: one with `tracking=none` is in no store.

Anyone may have written the folder: every file passes the checks of `files/untrusted.py`.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxlab.errors import InputNotFoundError, UserError
from mlxlab.experiment.manifest import FILE as MANIFEST
from mlxlab.experiment.manifest import Manifest, effective_status, read_manifest
from mlxlab.experiment.past_run.stored_config import read_run_config
from mlxlab.experiment.reproduction.run_lock import RunLock, read_lock
from mlxlab.metric_names import VALID
from mlxlab.record.run_file import read_run
from mlxlab.tracking.journal import flatten
from mlxlab.tracking.mlflow.names import clean, clean_params
from mlxlab.tracking.provenance import VERSIONS
from mlxlab.tracking.runs.diff import COMMIT
from mlxlab.tracking.runs.reader import MAIN, RunRow

_STATUSES = {
    "DONE": "FINISHED",
    "PREEMPTED": "KILLED",
    "DEAD": "KILLED",
}  # of a manifest -> of a store


def read_run_folder(folder: Path) -> RunRow:
    """The run in a folder. `experiment_id` is "": it was not read from a store.

    Raises:
        InputNotFoundError: it is no run folder.
        DataError, NotAllowedError: one of its files is damaged, or its config is not valid.
    """
    manifest, config = read_manifest(folder), _config(folder)
    first, last = manifest["attempts"][0], manifest["attempts"][-1]
    status = effective_status(folder)
    params = config | {"choices": manifest.get("inputs", {}).get("choices", {})} if config else {}
    return RunRow(
        run_id=manifest["id"],
        name=manifest["name"],
        experiment="",
        experiment_id="",
        status=_STATUSES.get(status, status),
        start=_milliseconds(first["start"]),
        end=_milliseconds(last["end"]) if "end" in last else None,
        uid=None,
        parent=None,
        folder=str(folder),
        metrics=_metrics(folder, manifest),
        params=clean_params({key: str(value) for key, value in flatten(params).items()}),
        tags=_tags(folder, manifest),
        best=_best(folder, manifest),
        datasets=_datasets(manifest, config),
    )


def newest_runs(roots: Iterable[Path], limit: int) -> list[RunRow]:
    """The newest runs of the run folders below some folders, without those that cannot be read."""
    folders = [folder for root in roots for folder in _run_folders(root)]
    folders.sort(key=lambda folder: (folder / MANIFEST).stat().st_mtime, reverse=True)
    rows: list[RunRow] = []
    for folder in folders:
        if len(rows) == limit:
            break
        with suppress(UserError):
            rows.append(read_run_folder(folder))
    return sorted(rows, key=lambda run: run.start or 0, reverse=True)


def _run_folders(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        if MANIFEST in files:
            names.clear()  # The rounds of a run are no runs of their own.
            yield Path(folder)


def _datasets(manifest: Manifest, config: dict[str, Any]) -> dict[str, str]:
    """Name -> fingerprint of the data set, as it is tracked."""
    digest = manifest.get("inputs", {}).get("data")
    node = config.get("data")
    if not digest or not isinstance(node, dict):
        return {}
    return {str(node["_target_"]).rpartition(".")[2]: digest}


def _config(folder: Path) -> dict[str, Any]:
    """Empty if the run ended before it was stored."""
    with suppress(InputNotFoundError):
        return read_run_config(folder)
    return {}


def _best(folder: Path, manifest: Manifest) -> dict[str, float]:
    """The main metrics of the best evaluation; of a run that has not ended yet only the objective."""
    outcome = manifest.get("outcome", {})
    best = {outcome["objective"]: outcome.get("best")} if "objective" in outcome else {}
    with suppress(InputNotFoundError):
        metrics = read_run(folder).evaluation.keyed_metrics("valid")
        best |= {key: value for key, value in metrics.items() if key.removeprefix(VALID) in MAIN}
    return {clean(key): value for key, value in best.items() if value is not None}


def _metrics(folder: Path, manifest: Manifest) -> dict[str, float]:
    """Those of the last evaluation, and of the test rows; NaN where a value is not finite."""
    metrics = dict(manifest.get("outcome", {}).get("final", {}))
    with suppress(InputNotFoundError):
        metrics |= read_run(folder).evaluation.keyed_metrics("test")
    return {clean(key): float("nan") if value is None else value for key, value in metrics.items()}


def _tags(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Objective, command line, commit, versions."""
    inputs, git = manifest.get("inputs", {}), manifest.get("git", {})
    tags = {"overrides": " ".join(inputs.get("overrides", []))}
    objective, commit, lock = (
        manifest.get("outcome", {}).get("objective"),
        git.get("commit"),
        _lock(folder),
    )
    versions = lock["versions"] if lock else inputs.get("versions", {})
    tags |= {f"version.{name}": versions[name] for name in VERSIONS if name in versions}
    tags |= {"objective": objective} if objective else {}
    tags |= {COMMIT: commit, "git.dirty": git.get("dirty") or "unknown"} if commit else {}
    return tags


def _lock(folder: Path) -> RunLock | None:
    with suppress(InputNotFoundError):
        return read_lock(folder)
    return None


def _milliseconds(seconds: float) -> int | None:
    """None for what is no time."""
    return int(seconds * 1000) if 0 <= seconds < 253_402_300_800 else None
