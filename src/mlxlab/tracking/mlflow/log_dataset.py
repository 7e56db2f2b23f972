"""Logs the data set of a run to MLflow."""

import json
from typing import TYPE_CHECKING

from mlxlab.tracking.records import Dataset

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_DIGEST = 36  # characters


def log_dataset(client: "MlflowClient", run_id: str, dataset: Dataset) -> None:
    from mlflow import entities

    source = json.dumps({"uri": dataset["source"]})
    data = entities.Dataset(dataset["name"], dataset["digest"][:MAX_DIGEST], "local", source)
    tags = [entities.InputTag("mlflow.data.context", "training")]
    client.log_inputs(run_id, [entities.DatasetInput(data, tags)])
