"""Uploads one journal to its MLflow run, each record exactly once.

The offset of what is uploaded is written to `journal.sync.json` after the store has the records. If the syncer dies in
between, records are sent twice, which changes nothing: MLflow drops equal metric rows, the rest replaces what is there.
"""

import fcntl
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import UserError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import open_regular
from mlxlab.tracking import records
from mlxlab.tracking.copy_artifact import copy_artifact
from mlxlab.tracking.mlflow import queue
from mlxlab.tracking.mlflow.client import (
    MAX_KEY,
    MAX_TAG,
    UID,
    MlflowStore,
    clean,
    clean_params,
    clean_tags,
    truncate,
)
from mlxlab.tracking.mlflow.errors import (
    JournalRejectedError,
    RunNotFoundError,
    classify_error,
    printable,
)
from mlxlab.tracking.mlflow.log_dataset import log_dataset
from mlxlab.tracking.mlflow.log_model import log_model
from mlxlab.tracking.mlflow.ownership import FOLDER, allowed_tags, check_owner, started_run
from mlxlab.tracking.mlflow.registry import register_model
from mlxlab.tracking.mlflow.sqlite import delete_metrics_after
from mlxlab.tracking.record_writer import has_writer
from mlxlab.tracking.tracker import Status

if TYPE_CHECKING:
    from mlflow.entities import Metric

MAX_METRICS = 900  # rows between two states that are saved; servers accept 1,000 in a request


class JournalUploader:
    """The journal of run `uid` in `folder`. Nothing outside the folder is read."""

    def __init__(self, store: MlflowStore, folder: Path, uid: str) -> None:
        self.store, self.client = store, store.client
        self.folder, self.uid = folder, uid
        self.journal, self._state_path = records.locate(folder, uid)
        self.is_foreign = queue.has_flag(store.address.queue, uid, queue.FOREIGN)
        self.is_unregistered = queue.has_flag(store.address.queue, uid, queue.UNREGISTERED)
        self.records = 0  # uploaded by this object
        self.state = _read_state(store, folder, uid) or _new_state(store, uid)

    def upload_pending(self) -> bool:
        """Uploads new records; returns whether the journal is complete: uploaded, and its writer has ended.

        Raises:
            StoreUnavailableError, JournalRejectedError: records up to the last acknowledged one are in the store.
        """
        try:
            return self._upload()
        except Exception as error:  # of MLflow, of a database or of HTTP: it has no common base
            reason = classify_error(error)
            if isinstance(reason, RunNotFoundError):
                self.state = _new_state(self.store, self.uid)
                return False
            if isinstance(reason, JournalRejectedError):
                self.state["fault"] = str(reason)
                with suppress(JournalRejectedError):
                    self._save_state()
            raise reason from error

    def release(self) -> bool:
        """Removes the journal from the queue, unless its run was resumed meanwhile."""
        with open_regular(self.journal) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            if next(records.read_records(self.journal, self.state["offset"]), None) is not None:
                return False
            # Before the lock goes: a resuming run registers under it.
            queue.unregister(self.store.address.queue, self.uid)
        return True

    def _upload(self) -> bool:
        # Before reading: nothing can follow what is read now.
        writer_gone = not has_writer(self.journal)
        metrics: list[Metric] = []
        offset = start = self.state["offset"]
        for record, end in records.read_records(self.journal, start):
            if record is not None and "m" in record:
                metrics += self._rows(record)
                if len(metrics) >= MAX_METRICS:
                    self._send(metrics, end)
            elif record is not None:
                self._send(metrics, offset)
                self.store.check()
                self.state["t"] = record["t"]
                self._apply(record)
                self._acknowledge(end)
            self.records += 1
            offset = end
        self._send(metrics, offset)
        if not writer_gone or offset != start:
            return False
        if self.state.get("status") == "RUNNING":
            self._end("KILLED", self.state.get("t"))
            self._acknowledge(offset)
        return True

    def _rows(self, record: records.Record) -> "list[Metric]":
        from mlflow.entities import Metric

        step, seen = record["s"], self.state["seen"]
        values = {clean(key): float(value) for key, value in record["m"].items()}
        return [
            Metric(key, value, record["t"], step)
            for key, value in values.items()
            if step > seen.get(key, -1)
        ]

    def _send(self, metrics: "list[Metric]", offset: int) -> None:
        """Sends the rows up to `offset`, and empties the list."""
        if offset == self.state["offset"]:
            return
        if metrics:
            self.client.log_batch(self._run_id, metrics=metrics)
            self.state["t"] = metrics[-1].timestamp
        metrics.clear()
        self._acknowledge(offset)

    def _acknowledge(self, offset: int) -> None:
        self.state["offset"] = offset
        self.state.pop("fault", None)
        self._save_state()

    def _save_state(self) -> None:
        try:
            write_json(self._state_path, self.state, indent=None)
        except OSError as error:  # of this run folder: other journals can be uploaded
            raise JournalRejectedError(
                f"{self._state_path}: cannot be written ({error.strerror})"
            ) from None

    def _apply(self, record: records.Record) -> None:
        if "start" in record:
            self._start(record["start"], record["t"])
        elif "tags" in record:
            self._set_tags(self._allowed(record["tags"]))
        elif "dataset" in record:
            log_dataset(self.client, self._run_id, record["dataset"])
        elif "artifact" in record:
            self._log_artifact(record["artifact"])
        elif "model" in record:
            self._log_model(record["model"])
        elif "register" in record:
            self._register(record["register"])
        elif "truncate_after" in record:
            self._truncate_after(record["truncate_after"])
        elif "end" in record:
            self._end(record["end"], record["t"])

    def _start(self, start: records.RunStart, t: int) -> None:
        """Finds or creates the run, and sets what it started with."""
        from mlflow.entities import Param

        if start["uid"] != self.uid:
            raise JournalRejectedError(
                f"expected the journal of run {self.uid}, got that of {start['uid']}"
            )
        experiment = self.store.experiment(start["experiment"])
        own_tags = {UID: self.uid, FOLDER: records.utf8(self.folder)}
        parent = self.store.find(start["parent"], experiment) if start["parent"] else None
        if parent is not None:
            own_tags["mlflow.parentRunId"] = parent.info.run_id
        run = self.store.find(self.uid, experiment)
        if run is None:
            name = printable(start["name"])
            run = self.client.create_run(experiment, start_time=t, tags=own_tags, run_name=name)
        elif run.info.run_id != self.state.get("run_id"):
            check_owner(run, self.folder, self.uid, is_foreign=self.is_foreign)
        if run.info.lifecycle_stage == "deleted":
            raise JournalRejectedError(
                f"run {run.info.run_id} was deleted in MLflow; restore it there, then sync"
            )
        self.state["run_id"] = run.info.run_id
        self.state["experiment_id"] = experiment
        self.state["status"] = "RUNNING"
        self.client.update_run(self._run_id, status="RUNNING")
        tags = self._allowed(start["tags"]) | own_tags
        known = run.data.params
        params = []
        for key, value in clean_params(start["params"]).items():
            if key not in known:
                params.append(Param(key, value))
            elif value != known[key]:  # Written once: what a resume has changed becomes a tag.
                tags[f"resumed.{key}"[:MAX_KEY]] = f"{known[key]} -> {value}"
        self.client.log_batch(self._run_id, params=params)
        self._set_tags(tags)

    def _allowed(self, tags: dict[str, str]) -> dict[str, str]:
        allowed, refused = allowed_tags(tags)
        if refused:
            self._note(f"tags that a journal may not set: {', '.join(refused)}")
        return allowed

    def _set_tags(self, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        items = [RunTag(key, value) for key, value in clean_tags(tags).items()]
        self.client.log_batch(self._run_id, tags=items)

    def _log_artifact(self, artifact: records.Artifact) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            try:
                copy = copy_artifact(
                    self.folder, artifact["path"], Path(temporary), self.store.max_bytes()
                )
            except UserError as error:
                self._note(f"artifact {error}")
                return
            send = self.client.log_artifacts if copy.is_dir() else self.client.log_artifact
            to = clean(artifact["to"]) if artifact["to"] else None
            send(self._run_id, str(copy), to)

    def _log_model(self, model: records.Model) -> None:
        ids = (self.state["experiment_id"], self._run_id)
        try:
            self.state["model"] = log_model(
                self.client, *ids, self.folder, model, self.store.max_bytes()
            )
        except UserError as error:
            self.state.pop("model", None)
            self._note(f"model of step {model['step']}: {error}")

    def _register(self, registration: records.Registration) -> None:
        ids = (self.state["experiment_id"], self._run_id)
        try:
            outcome = register_model(
                self.client, self.uid, ids, registration, is_foreign=self.is_unregistered
            )
            self.state["registered"] = outcome
        except UserError as error:
            self.state["registered"] = f"not registered: {error}"
            self._note(self.state["registered"])

    def _truncate_after(self, step: int) -> None:
        if self.store.engine:
            delete_metrics_after(self.store.engine, self._run_id, step)
            return
        # A server has no call for that: what it already has stays, and is not logged again.
        for key in self.client.get_run(self._run_id).data.metrics:
            history = self.client.get_metric_history(self._run_id, key)
            self.state["seen"][key] = max(metric.step for metric in history)
        if any(last > step for last in self.state["seen"].values()):
            self._note(
                f"this server deletes no metrics: those above step {step} are from before the resume"
            )

    def _end(self, status: Status, t: int | None) -> None:
        self.client.set_terminated(self._run_id, status, t)
        self.state["status"] = status

    def _note(self, reason: str) -> None:
        before = f"{self.state['missing']}; " if "missing" in self.state else ""
        self.state["missing"] = truncate(before + printable(reason), MAX_TAG)
        self.state["num_missing"] = self.state.get("num_missing", 0) + 1
        self._set_tags({"mlxlab.missing": self.state["missing"]})

    @property
    def _run_id(self) -> str:
        if "run_id" not in self.state:
            raise JournalRejectedError("the first line of the journal does not start a run")
        return self.state["run_id"]


def _new_state(store: MlflowStore, uid: str) -> records.SyncState:
    """Nothing is uploaded."""
    return {"uid": uid, "store": store.address.shown, "offset": 0, "seen": {}}


def _read_state(store: MlflowStore, folder: Path, uid: str) -> records.SyncState | None:
    """The saved state if it is of this store, and the store still has the run: a database may be deleted.

    None, too, if the run in the store is not that of the journal. Raises as `classify_error`.
    """
    journal, path = records.locate(folder, uid)
    state = records.read_state(path, uid)
    if state is None or state["store"] != store.address.shown or "run_id" not in state:
        return None
    if state["offset"] > journal.stat().st_size:
        return None
    try:
        run = store.client.get_run(state["run_id"])
    except Exception as error:  # of MLflow, of a database or of HTTP: it has no common base
        reason = classify_error(error)
        if isinstance(reason, RunNotFoundError):
            return None
        raise reason from error
    if run.data.tags.get(UID) != uid or not started_run(run, folder, uid):
        return None
    return {**state, "experiment_id": run.info.experiment_id}
