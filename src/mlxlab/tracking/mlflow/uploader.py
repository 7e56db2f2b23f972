"""Uploads one journal to the store, each record exactly once.

The offset up to which it has been uploaded is written to `journal.sync.json` after the store has the records. A record
that is sent twice, because the syncer died in between, changes nothing: MLflow drops equal metric rows, and everything
else is set, not added.
"""

import fcntl
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import open_regular
from mlxlab.tracking.mlflow import queue
from mlxlab.tracking.mlflow.client import UID, MlflowStore
from mlxlab.tracking.mlflow.errors import JournalRejectedError, RunNotFoundError, classify_error
from mlxlab.tracking.mlflow.log_record import RecordLogger
from mlxlab.tracking.mlflow.naming import clean
from mlxlab.tracking.record_writer import has_writer
from mlxlab.tracking.records import FILE, STATE, Record, SyncState, read_records, read_state

if TYPE_CHECKING:
    from mlflow.entities import Metric

MAX_METRICS = 900  # rows per request; MLflow's servers accept 1,000


def locate(folder: Path, uid: str) -> tuple[Path, Path]:
    """Journal and state of a run. Its journal may have been set aside for another run in the folder."""
    aside = folder / FILE.replace("journal", f"journal-{uid}", 1)
    if aside.exists():
        return aside, folder / STATE.replace("journal", f"journal-{uid}", 1)
    return folder / FILE, folder / STATE


class JournalUploader:
    """The journal of run `uid` in `folder`."""

    def __init__(self, store: MlflowStore, folder: Path, uid: str) -> None:
        self.store, self.uid = store, uid
        self.journal, self._state_path = locate(folder, uid)
        self.records = 0  # uploaded by this object
        self.notes: list[str] = []  # what could not be uploaded
        self.state = self._read_state() or self._new_state()
        self._log = RecordLogger(store, folder, self.state, self.notes)

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
                self.state.update(self._new_state())
                return False
            if isinstance(reason, JournalRejectedError):
                self.state["fault"] = str(reason)
                self._save_state()
            raise reason from error

    def release(self) -> bool:
        """Removes the journal from the queue, unless its run was resumed meanwhile."""
        with open_regular(self.journal) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            if next(read_records(self.journal, self.state["offset"]), None) is not None:
                return False
            # Before the lock goes: a resuming run registers under it.
            queue.unregister(self.store.address.queue, self.uid)
        return True

    def _upload(self) -> bool:
        writer_gone = not has_writer(self.journal)  # before reading: nothing can follow what is read now
        metrics: list[Metric] = []
        offset = start = self.state["offset"]
        for record, end in read_records(self.journal, start):
            if record is not None and "m" in record:
                metrics += self._rows(record)
                if len(metrics) >= MAX_METRICS:
                    self._send(metrics, end)
                    metrics = []
            elif record is not None:
                self._send(metrics, offset)
                metrics = []
                self.store.check()
                self.state["t"] = record["t"]
                self._log.apply(record)
                self._acknowledge(end)
            self.records += 1
            offset = end
        self._send(metrics, offset)
        if not writer_gone or offset != start:
            return False
        if self.state["status"] == "RUNNING":
            self._log.end("KILLED", self.state["t"])
            self._acknowledge(offset)
        return True

    def _send(self, metrics: "list[Metric]", offset: int) -> None:
        if offset == self.state["offset"]:
            return
        for i in range(0, len(metrics), MAX_METRICS):
            self.store.client.log_batch(self._log.run_id, metrics=metrics[i : i + MAX_METRICS])
        if metrics:
            self.state["t"] = metrics[-1].timestamp
        self._acknowledge(offset)

    def _rows(self, record: Record) -> "list[Metric]":
        from mlflow.entities import Metric

        seen, t, step = self.state["seen"], record["t"], record["s"]
        values = {clean(key): float(value) for key, value in record["m"].items()}
        return [Metric(key, value, t, step) for key, value in values.items() if step > seen.get(key, -1)]

    def _read_state(self) -> SyncState | None:
        """The saved state if it belongs to this store and the store still has the run; the database may have been
        deleted, or restored from a backup."""
        state = read_state(self._state_path, self.uid)
        if state is None or state["store"] != self.store.address.shown or not state["run_id"]:
            return None
        if state["offset"] > self.journal.stat().st_size:
            return None
        try:
            run = self.store.client.get_run(state["run_id"])
        except Exception as error:
            reason = classify_error(error)
            if isinstance(reason, RunNotFoundError):
                return None
            raise reason from error
        return state if run.data.tags.get(UID) == self.uid else None

    def _new_state(self) -> SyncState:
        return {
            "uid": self.uid,
            "store": self.store.address.shown,
            "offset": 0,
            "run_id": None,
            "experiment_id": None,
            "status": None,
            "t": None,
            "fault": None,
            "seen": {},
            "models": {},
        }

    def _acknowledge(self, offset: int) -> None:
        self.state["offset"], self.state["fault"] = offset, None
        self._save_state()

    def _save_state(self) -> None:
        write_json(self._state_path, self.state, indent=None)
