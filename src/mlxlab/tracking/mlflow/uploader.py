"""Carries one journal into the store, each line exactly once.

How far it got stands in `journal.sync.json` beside the journal and is written after the store has the lines. A line
that is carried twice (we died in between) changes nothing: MLflow drops equal metric rows, the rest is set, not added.
"""

import fcntl
import json
from pathlib import Path
from typing import Any

from mlxlab.tracking import jsonl
from mlxlab.tracking.journal import FILE, STATE
from mlxlab.tracking.mlflow import log_model, spool
from mlxlab.tracking.mlflow.client import UID, MlflowStore
from mlxlab.tracking.mlflow.errors import JournalRejectedError, RunNotFoundError, classify_error
from mlxlab.tracking.mlflow.naming import MAX_TAG, truncate

MAX_METRICS = 900  # rows a call; MLflow's servers take 1,000
MAX_PARAMS = 100


def locate(folder: Path, uid: str) -> tuple[Path, Path]:
    """Journal and state of a run: another run may have taken the folder since."""
    aside = folder / FILE.replace("journal", f"journal-{uid}", 1)
    if aside.exists():
        return aside, folder / STATE.replace("journal", f"journal-{uid}", 1)
    return folder / FILE, folder / STATE


class JournalUploader:
    """The journal of run `uid` in `folder`."""

    def __init__(self, store: MlflowStore, folder: Path, uid: str) -> None:
        self.store, self.folder, self.uid = store, folder, uid
        self.journal, self._state_path = locate(folder, uid)
        self.state = spool.read_json(self._state_path)
        self.carried = 0  # lines, by this object
        self.notes: list[str] = []
        if self.state.get("uid") != uid or self.state.get("store") != store.address.shown or not self._known():
            self._begin_again()

    def advance(self) -> bool:
        """Brings what is there into the store; returns whether the journal is complete (its writer is gone, too).

        Raises:
            StoreUnavailableError, JournalRejectedError: lines up to the last acknowledged one are in the store.
        """
        try:
            return self._advance()
        except Exception as error:
            fault = classify_error(error)
            if isinstance(fault, RunNotFoundError):
                self._begin_again()
                return False
            if isinstance(fault, JournalRejectedError):
                self._acknowledge(fault=str(fault))
            raise fault from error

    def alive(self) -> bool:
        """Whether the run's process lives."""
        return jsonl.has_writer(self.journal)

    def retire(self, where: Path) -> bool:
        """Takes the journal off the spool, unless somebody is about to go on with it."""
        with self.journal.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            if next(jsonl.read(self.journal, self.state["offset"]), None) is not None:
                return False
            spool.unregister(where, self.uid)  # before the lock goes: a resuming run registers under it
        return True

    def _advance(self) -> bool:
        dead = not self.alive()  # asked before reading: nothing can follow what is read now
        metrics: list[Any] = []
        offset = start = self.state["offset"]
        for record, after in jsonl.read(self.journal, start):
            if "m" in record:
                metrics += self._rows(record)
                if len(metrics) >= MAX_METRICS:
                    self._send(metrics, after)
                    metrics = []
            elif record:
                self._send(metrics, offset)
                metrics = []
                self._apply(record)
                self._acknowledge(offset=after)
            self.carried += 1
            offset = after
        self._send(metrics, offset)
        if not dead or offset != start:
            return False
        if self.state.get("status") == "RUNNING":
            self._end("KILLED", self.state.get("t"))
        return True

    def _send(self, metrics: list[Any], offset: int) -> None:
        if offset == self.state["offset"]:
            return
        for i in range(0, len(metrics), MAX_METRICS):
            self.store.client.log_batch(self._run(), metrics=metrics[i : i + MAX_METRICS])
        self._acknowledge(offset=offset, t=metrics[-1].timestamp if metrics else self.state.get("t"))

    def _rows(self, record: dict[str, Any]) -> list[Any]:
        from mlflow.entities import Metric

        seen = self.state.get("seen") or {}
        t, step = record["t"], record["s"]
        return [Metric(key, value, t, step) for key, value in record["m"].items() if step > seen.get(key, -1)]

    def _apply(self, record: dict[str, Any]) -> None:
        self.store.check()
        self.state["t"] = record["t"]
        if "start" in record:
            self._start(record["start"], record["t"])
        elif "tags" in record:
            self._tag(record["tags"])
        elif "dataset" in record:
            self._dataset(record["dataset"])
        elif "artifact" in record:
            self._artifact(record["artifact"])
        elif "model" in record:
            self._model(record["model"])
        elif "rewind" in record:
            self._rewind(record["rewind"])
        elif "end" in record:
            self._end(record["end"], record["t"])

    def _start(self, start: dict[str, Any], t: int) -> None:
        experiment = self.store.experiment(start["experiment"])
        tags = start["tags"] | {UID: self.uid, "mlxlab.folder": str(self.folder)}
        if start["parent"] and (parent := self.store.find(start["parent"], experiment)):
            tags["mlflow.parentRunId"] = parent.info.run_id
        run = self.store.find(self.uid, experiment)
        if run is None:
            run = self.store.client.create_run(experiment, start_time=t, tags=tags, run_name=start["name"])
            self._acknowledge(run_id=run.info.run_id, experiment_id=experiment)
        elif run.info.lifecycle_stage == "deleted":
            raise JournalRejectedError(
                f"run {run.info.run_id} was deleted in MLflow; restore it there, then runs.py sync"
            )
        self._acknowledge(run_id=run.info.run_id, experiment_id=experiment, status="RUNNING")
        self.store.client.update_run(run.info.run_id, status="RUNNING")
        self._params(start["params"], run.data.params, tags)
        self._tag(tags)

    def _params(self, params: dict[str, str], known: dict[str, str], tags: dict[str, str]) -> None:
        """Params are write-once: what a resume has changed becomes tags `resumed.<key>`."""
        from mlflow.entities import Param

        for key in params.keys() & known.keys():
            if params[key] != known[key]:
                tags[f"resumed.{key}"[:250]] = truncate(f"{known[key]} -> {params[key]}", MAX_TAG)
        new = [Param(key, value) for key, value in params.items() if key not in known]
        for i in range(0, len(new), MAX_PARAMS):
            self.store.client.log_batch(self._run(), params=new[i : i + MAX_PARAMS])

    def _tag(self, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        all_tags = [RunTag(key, value) for key, value in tags.items()]
        for i in range(0, len(all_tags), MAX_PARAMS):
            self.store.client.log_batch(self._run(), tags=all_tags[i : i + MAX_PARAMS])

    def _dataset(self, dataset: dict[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"uri": dataset["source"]})
        data = Dataset(dataset["name"], dataset["digest"][:36], "local", source)
        tags = [InputTag("mlflow.data.context", dataset["context"])]
        self.store.client.log_inputs(self._run(), [DatasetInput(data, tags)])

    def _artifact(self, artifact: dict[str, str]) -> None:
        path = self.folder / artifact["path"]
        if not path.exists():
            return self._miss(f"artifact {path} is not there any more")
        send = self.store.client.log_artifacts if path.is_dir() else self.store.client.log_artifact
        return send(self._run(), str(path), artifact["to"] or None)

    def _model(self, model: dict[str, Any]) -> None:
        known = self.state.setdefault("models", {})
        reason = log_model.log_model(self.store.client, self.state, self.folder, model, known)
        if reason:
            self._miss(f"model {model['name']}: {reason}")

    def _rewind(self, step: int) -> None:
        if self.store.forget_above(self._run(), step):
            return
        # A server has no call for that. What stands there stays, and is not logged a second time.
        self.state["seen"] = self.store.last_steps(self._run())
        if any(last > step for last in self.state["seen"].values()):
            self._miss(f"this server deletes no metrics: those above step {step} are from before the resume")

    def _end(self, status: str, t: int | None) -> None:
        self.store.client.set_terminated(self._run(), status, t)
        self._acknowledge(status=status)

    def _miss(self, line: str) -> None:
        self.notes.append(line)
        self._tag({"mlxlab.missing": truncate("; ".join(self.notes), MAX_TAG)})

    def _run(self) -> str:
        if not self.state.get("run_id"):
            raise JournalRejectedError(f"{self.journal} does not begin with a start line")
        return self.state["run_id"]

    def _known(self) -> bool:
        """Whether the store still has the run. A database that was deleted, or put back from a backup, may not."""
        run_id = self.state.get("run_id")
        if not run_id:
            return False
        try:
            self.store.client.get_run(run_id)
        except Exception as error:
            fault = classify_error(error)
            if isinstance(fault, RunNotFoundError):
                return False
            raise fault from error
        return True

    def _begin_again(self) -> None:
        self.state = {"uid": self.uid, "store": self.store.address.shown, "offset": 0, "run_id": None}

    def _acknowledge(self, **fields: Any) -> None:
        self.state = {**self.state, "fault": None, **fields}
        spool.replace(self._state_path, json.dumps(self.state))
