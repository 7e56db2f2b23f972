"""Writes a store with any MLflow from 1.30: runs in an environment of that release, without mlxlab.

    python make_store.py FOLDER sqlite|files

FOLDER gets `mlflow.db` or `mlruns`, `artifacts` of the former, and `expected.json`: what that release reads back.
README.md tells how the fixtures were made.
"""

import json
import os
import sys
from pathlib import Path

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
from describe import describe
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

START = 1_700_000_000_000
STEPS = 1000


def fill(client: MlflowClient, folder: Path, artifacts: str | None) -> None:
    """Two experiments; a parent with two children, one of them failed; a deleted run; models."""
    experiment = client.create_experiment("titanic", artifacts and f"{artifacts}/titanic")
    client.set_experiment_tag(experiment, "team", "lab")
    parent = run(client, experiment, "sweep", {})
    best = run(client, experiment, "best", {"mlflow.parentRunId": parent})
    failed = run(client, experiment, "failed", {"mlflow.parentRunId": parent})
    metrics = [
        Metric("valid/loss", round(1 / step, 3), START + step, step) for step in range(1, STEPS + 1)
    ]
    params = [Param("lr", "0.1"), Param("model.name", "bert"), Param("note", "x" * 400)]
    client.log_batch(best, metrics=metrics, params=params)
    odd = [
        Metric("odd", value, START, step)
        for step, value in enumerate([float("nan"), float("inf"), -0.5, -1e300])
    ]
    client.log_batch(failed, metrics=[*odd, odd[2]], params=[Param("lr", "0.3")])
    (folder / "model.txt").write_text("weights\n")
    client.log_artifact(best, str(folder / "model.txt"), "model")
    client.log_artifact(best, str(folder / "model.txt"))
    log_dataset(client, best)
    client.set_terminated(best, "FINISHED", START + 5000)
    client.set_terminated(failed, "FAILED", START + 4000)
    other = client.create_experiment("other", artifacts and f"{artifacts}/other")
    deleted = run(client, other, "deleted", {})
    client.set_terminated(deleted, "KILLED", START + 10)
    client.delete_run(deleted)
    if (
        mlflow.__version__[0] > "1" or artifacts
    ):  # the file store of MLflow 1 has no registered models
        register(client, best)


def run(client: MlflowClient, experiment: str, name: str, tags: dict[str, str]) -> str:
    own = {
        "mlflow.runName": name,
        "mlflow.user": "anna",
        "mlflow.note.content": "line 1\nline 2 \u00e9",
    }
    return str(client.create_run(experiment, start_time=START, tags=own | tags).info.run_id)


def log_dataset(client: MlflowClient, run_id: str) -> None:
    if int(mlflow.__version__.split(".")[0]) < 2:
        return
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset("train.csv", "abc123", "local", '{"uri": "train.csv"}')
    inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
    log = client.log_inputs if hasattr(client, "log_inputs") else client._tracking_client.log_inputs
    log(run_id, inputs)


def register(client: MlflowClient, run_id: str) -> None:
    """Two versions of a model; the second has an alias where the release knows those, else a stage."""
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    client.create_registered_model("classifier", {"task": "titanic"}, "of passengers")
    for number in (1, 2):
        client.create_model_version("classifier", source, run_id, description=f"version {number}")
    client.set_model_version_tag("classifier", "2", "checked", "yes")
    if hasattr(client, "set_registered_model_alias"):
        client.set_registered_model_alias("classifier", "champion", "2")
    else:
        client.transition_model_version_stage("classifier", "2", "Production")
    if hasattr(client, "create_logged_model"):
        log_model(client, run_id)


def log_model(client: MlflowClient, run_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    experiment = client.get_run(run_id).info.experiment_id
    width = {"width": "8"}
    model = client.create_logged_model(
        experiment, "checkpoint", run_id, {"kind": "best"}, width, "checkpoint"
    )
    path = Path(model.artifact_location.replace("file://", ""))
    path.mkdir(parents=True)
    (path / "weights.txt").write_text("logged\n")
    client.finalize_logged_model(model.model_id, "READY")
    client.log_metric(run_id, "valid/accuracy", 0.75, START, 1000, model_id=model.model_id)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 1000)])
    client.create_model_version(
        "classifier", f"models:/{model.model_id}", run_id, model_id=model.model_id
    )


def main() -> None:
    folder, kind = Path(sys.argv[1]).absolute(), sys.argv[2]
    folder.mkdir(parents=True)
    os.chdir(folder)
    uri = f"sqlite:///{folder}/mlflow.db" if kind == "sqlite" else f"file://{folder}/mlruns"
    try:
        client = MlflowClient(uri, uri)
        fill(client, folder, f"{folder}/artifacts" if kind == "sqlite" else None)
        (folder / "expected.json").write_text(
            json.dumps(describe(client), indent=1, sort_keys=True)
        )
    finally:
        (folder / "model.txt").unlink()


if __name__ == "__main__":
    main()
