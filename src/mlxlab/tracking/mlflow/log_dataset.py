"""Logs the data of a run to MLflow, by an address that loads."""

import json
from typing import TYPE_CHECKING

from mlxlab.tracking.records import Dataset

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_DIGEST = 36  # characters
CONTEXT = "mlflow.data.context"
HUB = "hf://datasets/"


def log_dataset(client: "MlflowClient", run_id: str, dataset: Dataset) -> None:
    """Adds data to the inputs of a run; a second time changes nothing."""
    from mlflow import entities

    kind, source = _source(dataset["source"])
    data = entities.Dataset(
        dataset["name"],
        dataset["digest"][:MAX_DIGEST],
        kind,
        json.dumps(source),
        dataset.get("schema"),
        dataset.get("profile"),
    )
    tags = [entities.InputTag(CONTEXT, dataset["context"])]
    client.log_inputs(run_id, [entities.DatasetInput(data, tags)])


def _source(address: str) -> tuple[str, dict[str, str]]:
    """The type of a source and its field, by which `mlflow.data.get_source` finds the class that loads it."""
    if address.startswith(HUB):
        return "hugging_face", {"path": address.removeprefix(HUB)}
    if address.startswith(("http://", "https://")):
        return "http", {"url": address}
    return "local", {"uri": address}
