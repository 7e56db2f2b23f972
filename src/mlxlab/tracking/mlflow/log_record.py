"""Logs the records of a journal to the MLflow run that belongs to it."""

import json
import tempfile
from pathlib import Path

from mlxlab.errors import UserError
from mlxlab.tracking.mlflow.client import UID, MlflowStore
from mlxlab.tracking.mlflow.errors import JournalRejectedError
from mlxlab.tracking.mlflow.log_model import copy_artifact, log_model
from mlxlab.tracking.mlflow.naming import MAX_KEY, clean, clean_params, clean_tags
from mlxlab.tracking.records import Artifact, Dataset, Model, Record, Start, SyncState, utf8
from mlxlab.tracking.tracker import Status

MAX_ITEMS = 100  # parameters or tags per request


class RecordLogger:
    """Applies all records but metrics.

    Args:
        folder: the run folder; nothing outside is read.
        state: shared with the uploader, which saves it.
        notes: shared with the uploader: what could not be uploaded is added.
    """

    def __init__(self, store: MlflowStore, folder: Path, state: SyncState, notes: list[str]) -> None:
        self.store, self.client, self.folder, self.state, self.notes = store, store.client, folder, state, notes

    @property
    def run_id(self) -> str:
        if not self.state["run_id"]:
            raise JournalRejectedError("the first line of the journal does not start a run")
        return self.state["run_id"]

    def apply(self, record: Record) -> None:
        if "start" in record:
            self._start(record["start"], record["t"])
        elif "tags" in record:
            self._tags(record["tags"])
        elif "dataset" in record:
            self._dataset(record["dataset"])
        elif "artifact" in record:
            self._artifact(record["artifact"])
        elif "model" in record:
            self._model(record["model"])
        elif "truncate_after" in record:
            self._truncate_after(record["truncate_after"])
        elif "end" in record:
            self.end(record["end"], record["t"])

    def end(self, status: Status, t: int | None) -> None:
        self.client.set_terminated(self.run_id, status, t)
        self.state["status"] = status

    def _start(self, start: Start, t: int) -> None:
        """Finds or creates the run, and sets what it started with."""
        uid = self.state["uid"]
        if start["uid"] != uid:
            raise JournalRejectedError(f"expected the journal of run {uid}, got that of {start['uid']}")
        experiment = self.store.experiment(start["experiment"])
        tags = clean_tags(start["tags"]) | {UID: uid, "mlxlab.folder": utf8(self.folder)}
        if start["parent"] and (parent := self.store.find(start["parent"], experiment)):
            tags["mlflow.parentRunId"] = parent.info.run_id
        run = self.store.find(uid, experiment)
        if run is None:
            run = self.client.create_run(experiment, start_time=t, tags=tags, run_name=start["name"])
        elif run.info.lifecycle_stage == "deleted":
            raise JournalRejectedError(f"run {run.info.run_id} was deleted in MLflow; restore it there, then sync")
        self.state["run_id"], self.state["experiment_id"] = run.info.run_id, experiment
        self.state["status"] = "RUNNING"
        self.client.update_run(self.run_id, status="RUNNING")
        self._params(clean_params(start["params"]), run.data.params, tags)
        self._tags(tags)

    def _params(self, params: dict[str, str], known: dict[str, str], tags: dict[str, str]) -> None:
        """Parameters are write-once: what a resume has changed becomes tags `resumed.<key>`."""
        from mlflow.entities import Param

        for key in params.keys() & known.keys():
            if params[key] != known[key]:
                tags[f"resumed.{key}"[:MAX_KEY]] = f"{known[key]} -> {params[key]}"
        new = [Param(key, value) for key, value in params.items() if key not in known]
        for i in range(0, len(new), MAX_ITEMS):
            self.client.log_batch(self.run_id, params=new[i : i + MAX_ITEMS])

    def _tags(self, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        items = [RunTag(key, value) for key, value in clean_tags(tags).items()]
        for i in range(0, len(items), MAX_ITEMS):
            self.client.log_batch(self.run_id, tags=items[i : i + MAX_ITEMS])

    def _dataset(self, dataset: Dataset) -> None:
        from mlflow.entities import Dataset as MlflowDataset
        from mlflow.entities import DatasetInput, InputTag

        source = json.dumps({"uri": dataset["source"]})
        data = MlflowDataset(dataset["name"], dataset["digest"][:36], "local", source)
        tags = [InputTag("mlflow.data.context", dataset["context"])]
        self.client.log_inputs(self.run_id, [DatasetInput(data, tags)])

    def _artifact(self, artifact: Artifact) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            try:
                copy = copy_artifact(self.folder, artifact["path"], Path(temporary))
            except UserError as error:
                return self._note(f"artifact {error}")
            send = self.client.log_artifacts if copy.is_dir() else self.client.log_artifact
            return send(self.run_id, str(copy), clean(artifact["to"]) if artifact["to"] else None)

    def _model(self, model: Model) -> None:
        assert self.state["experiment_id"] is not None, "a run was started"
        try:
            uri = log_model(self.client, self.state["experiment_id"], self.run_id, self.folder, model)
            self.state["models"][model["name"]] = uri
        except UserError as error:
            self._note(f"model {model['name']}: {error}")

    def _truncate_after(self, step: int) -> None:
        if self.store.delete_metrics_after(self.run_id, step):
            return
        # A server has no call for that: what it already has stays, and is not logged a second time.
        self.state["seen"] = self.store.last_steps(self.run_id)
        if any(last > step for last in self.state["seen"].values()):
            self._note(f"this server deletes no metrics: those above step {step} are from before the resume")

    def _note(self, line: str) -> None:
        self.notes.append(utf8(line))
        self._tags({"mlxlab.missing": "; ".join(self.notes)})
