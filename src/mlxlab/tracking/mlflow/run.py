"""One run in MLflow, as a journal is replayed into it, each record exactly once.

The tag `mlxlab.position` says how far. A process may die between records and the tag that counts them: then the history
of each metric in the store says which rows it has, and everything else replaces what is there. The same question is
asked when a resumed run logs steps again: rows with an equal value are not sent.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import UserError
from mlxlab.tracking.copy_artifact import copy_artifact
from mlxlab.tracking.destination import Entry
from mlxlab.tracking.mlflow.log_model import log_model
from mlxlab.tracking.mlflow.names import (
    MAX_PARAM,
    MAX_TAG,
    clean,
    clean_values,
    truncate,
)
from mlxlab.tracking.one_line import printable
from mlxlab.tracking.records import Artifact, Dataset, Model, Number, Record, RunStart, utf8

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

MAX_DIGEST = 36  # characters
CONTEXT = "mlflow.data.context"
HUB = "hf://datasets/"

UID = "mlxlab.uid"  # tag: ties an MLflow run to its journal
FOLDER = "mlxlab.folder"  # tag: the run folder
POSITION = "mlxlab.position"  # tag: byte of the journal up to which it is here
MISSING = "mlxlab.missing"  # tag: what could not be uploaded, and why
MAX_METRICS = 900  # Servers accept 1,000 in a request.
# A journal may come from a stranger: it sets no tag by which runs are found.
_RESERVED = (UID, FOLDER, POSITION, MISSING, "mlxlab.migrated_from")
_SETTABLE = ("mlflow.user", "mlflow.note.", "mlflow.source.")


class MlflowRun:
    """A run in MLflow; see `destination.Upload`."""

    def __init__(self, client: "MlflowClient", run: "Run", entry: Entry) -> None:
        self.client = client
        self.entry = entry
        self.run_id = run.info.run_id
        self.experiment_id = run.info.experiment_id
        is_own = run.data.tags.get(UID) == entry.uid  # else the user names it, to be continued
        self.position = 0
        if is_own:
            self.position = int(run.data.tags.get(POSITION, 0))
        self.has_ended = run.info.status not in ("RUNNING", "SCHEDULED")
        self.notes: list[str] = []
        self._missing = run.data.tags.get(MISSING, "")
        self._params = dict(run.data.params)
        self._rows: list[Metric] = []
        self._next = self.position  # after `_rows`
        self._may_have_rows = bool(run.data.metrics)
        self._history: dict[str, set[tuple[int, str]]] = {}  # metric -> (step, value)

    def add(self, record: Record, position: int) -> None:
        if "m" in record:
            self._add_metrics(record["m"], record["s"], record["t"])
            self._next = position
            if len(self._rows) >= MAX_METRICS:
                self.flush()
            return
        self.flush()
        self._apply(record)
        self._set_position(position)

    def flush(self) -> None:
        if self._rows:
            self.client.log_batch(self.run_id, metrics=self._rows)
            self._rows = []
        if self._next > self.position:
            self._set_position(self._next)

    def _set_position(self, position: int) -> None:
        """Sets the tag in a call of its own, after what it counts: one call splits into several requests, tags first."""
        self._set_tags({POSITION: str(position)})
        self.position = position
        self._next = position

    def _apply(self, record: Record) -> None:
        """Uploads a record other than metrics."""
        match record:
            case {"start": start}:
                self._start(start)
            case {"tags": tags}:
                self._set_tags(self._allowed(tags))
            case {"dataset": dataset}:
                log_dataset(self.client, self.run_id, dataset)
            case {"artifact": artifact}:
                self._log_artifact(artifact)
            case {"model": model}:
                self._log_model(model)
            case {"truncate_after": _}:
                self._may_have_rows = True
                self._history.clear()
            case {"end": status}:
                self.client.set_terminated(self.run_id, status, record["t"])
                self.has_ended = True

    def _start(self, start: RunStart) -> None:
        from mlflow.entities import Param

        self.client.update_run(self.run_id, status="RUNNING")
        self.has_ended = False
        params = clean_values(start["params"], MAX_PARAM)
        new = [Param(key, params[key]) for key in params if key not in self._params]
        self._params |= params  # They are written once: a resume has a tag for what it changes.
        self.client.log_batch(self.run_id, params=new)
        tags = {UID: self.entry.uid, FOLDER: utf8(self.entry.folder), POSITION: str(self.position)}
        self._set_tags(tags | self._allowed(start["tags"]))

    def _add_metrics(self, values: Mapping[str, Number], step: int, t: int) -> None:
        from mlflow.entities import Metric

        for name, number in values.items():
            key = clean(name)
            value = float(number)
            if not self._may_have_rows or (step, _stored(value)) not in self._rows_of(key):
                self._rows.append(Metric(key, value, t, step))

    def _rows_of(self, key: str) -> set[tuple[int, str]]:
        if key not in self._history:
            rows = self.client.get_metric_history(self.run_id, key)
            self._history[key] = {(row.step, _stored(row.value)) for row in rows}
        return self._history[key]

    def _allowed(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Tags within MLflow's limits, without those that a journal may not set."""
        cleaned = clean_values(tags, MAX_TAG)
        refused = [key for key in cleaned if _is_refused(key)]
        if refused:
            self._note(f"tags that a journal may not set: {', '.join(refused)}")
        return {key: value for key, value in cleaned.items() if key not in refused}

    def _set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        items = [RunTag(key, value) for key, value in tags.items()]
        self.client.log_batch(self.run_id, tags=items)

    def _log_artifact(self, artifact: Artifact) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            try:
                copy = copy_artifact(self.entry.folder, artifact["path"], Path(temporary))
            except UserError as error:
                self._note(f"artifact {error}")
                return
            to = artifact["to"] and clean(artifact["to"])
            if copy.is_dir():
                self.client.log_artifacts(self.run_id, str(copy), to)
            else:
                self.client.log_artifact(self.run_id, str(copy), to)

    def _log_model(self, model: Model) -> None:
        try:
            log_model(self.client, self.run_id, self.entry.folder, model)
        except UserError as error:
            self._note(f"model of step {model['step']}: {error}")

    def _note(self, reason: str) -> None:
        """What is missing is named in a tag; the rest of the run is uploaded."""
        reason = printable(reason)
        self.notes.append(reason)
        self._missing = "; ".join(filter(None, [self._missing, reason]))
        self._set_tags({MISSING: truncate(self._missing, MAX_TAG)})


def _is_refused(tag: str) -> bool:
    if tag.lower().startswith("mlflow."):
        return not tag.startswith(_SETTABLE)
    return tag.lower() in _RESERVED  # Some databases compare without case.


def _stored(value: float) -> str:
    """A value as a text that is equal for NaN, as MLflow stores it: infinity is the largest double."""
    if value != value:
        return "nan"
    return repr(max(-sys.float_info.max, min(sys.float_info.max, value)))


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
