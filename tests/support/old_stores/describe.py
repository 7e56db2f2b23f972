"""What an MLflow client reads out of a store, without ids that differ from store to store."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mlflow import MlflowClient
from mlflow.entities import ViewType


def describe(client: MlflowClient) -> dict[str, Any]:
    """Experiments with their runs by id, and registered models; of histories and files a checksum."""
    experiments = client.search_experiments(view_type=ViewType.ALL)
    return {
        "experiments": {item.name: _experiment(client, item) for item in experiments},
        "models": {
            item.name: _registered(client, item) for item in client.search_registered_models()
        },
    }


def _experiment(client: MlflowClient, experiment: Any) -> dict[str, Any]:
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    return {
        "tags": experiment.tags,
        "lifecycle": experiment.lifecycle_stage,
        "runs": {run.info.run_id: _run(client, run) for run in runs},
        "logged_models": _logged_models(client, experiment.experiment_id),
    }


def _run(client: MlflowClient, run: Any) -> dict[str, Any]:
    info = run.info
    return {
        "name": info.run_name,
        "status": info.status,
        "times": [info.start_time, info.end_time],
        "user": info.user_id,
        "lifecycle": info.lifecycle_stage,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {key: _number(value) for key, value in run.data.metrics.items()},
        "histories": {key: _history(client, info.run_id, key) for key in run.data.metrics},
        "artifacts": _files(info.artifact_uri),
        "datasets": [_dataset(item) for item in run.inputs.dataset_inputs],
        "outputs": _outputs(run),
    }


def _history(client: MlflowClient, run_id: str, key: str) -> list[Any]:
    """The number of different points, and their checksum. File stores keep what was logged twice."""
    points = {
        (item.step, item.timestamp, _number(item.value))
        for item in client.get_metric_history(run_id, key)
    }
    text = json.dumps(sorted(points, key=str))
    return [len(points), hashlib.sha256(text.encode()).hexdigest()[:16]]


def _number(value: float) -> float | str:
    """Infinities as the databases store them."""
    if math.isnan(value):
        return "nan"
    return math.copysign(min(abs(value), 1.7976931348623157e308), value)


def _dataset(item: Any) -> list[Any]:
    data = item.dataset
    return [
        data.name,
        data.digest,
        data.source_type,
        data.source,
        {tag.key: tag.value for tag in item.tags},
    ]


def _outputs(run: Any) -> list[list[Any]]:
    return [[item.model_id, item.step] for item in run.outputs.model_outputs] if run.outputs else []


def _logged_models(client: MlflowClient, experiment: str) -> dict[str, Any]:
    return {
        item.model_id: [
            *(item.name, item.model_type, str(item.status), item.source_run_id),
            *(item.params, item.tags),
            [[each.key, each.value, each.step, each.timestamp] for each in item.metrics or []],
            _files(item.artifact_location),
        ]
        for item in client.search_logged_models([experiment])
    }


def _registered(client: MlflowClient, model: Any) -> dict[str, Any]:
    versions = client.search_model_versions(f"name='{model.name}'")
    return {
        "description": model.description,
        "tags": model.tags,
        "aliases": {alias: int(version) for alias, version in model.aliases.items()},
        "versions": {str(item.version): _version(client, item) for item in versions},
    }


def _version(client: MlflowClient, version: Any) -> list[Any]:
    uri = client.get_model_version_download_uri(version.name, version.version)
    facts = (version.run_id, version.description, version.current_stage, version.tags)
    return [*facts, version.creation_timestamp, _files(uri)]


def _files(uri: str) -> dict[str, str]:
    folder = Path(unquote(uri[7:]) if uri.startswith("file://") else uri)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in files
    }
