"""Uploads journals to a tracking service.

An upload follows the journal until its run has ended. What a service was sent counts as uploaded after a few seconds, in
which its client sends or stores it: if this process dies, the last records are sent twice, which shows as one point.
"""

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError, ServiceUnavailableError, UserError
from mlxlab.extensions.tracking_services.destination import (
    UploadState,
    lock_path,
    read_upload_state,
    state_path,
)
from mlxlab.extensions.tracking_services.service import Service, ServiceRun, typed
from mlxlab.files.atomic import write_json
from mlxlab.tracking import records
from mlxlab.tracking.mlflow.errors import one_line, printable
from mlxlab.tracking.mlflow.queue import lock
from mlxlab.tracking.record_writer import has_writer

POLL_SECONDS = 0.5
CLIENT_SECONDS = 5.0  # after which the client of a service has sent or stored what it was given
SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "TRACKIO_WRITE_TOKEN")


class ServiceUploader:
    """The journal of run `uid` in `folder`. Nothing outside the folder is read."""

    def __init__(self, service: Service, folder: Path, uid: str, project: Path) -> None:
        self.service, self.folder, self.uid, self.project = service, folder, uid, project
        self._path = state_path(folder, uid, service.name)
        self.state = read_upload_state(self._path, uid) or self._new_state()
        self._offset = self.state["offset"]  # of what the client was given
        self._given: deque[tuple[float, int]] = (
            deque()
        )  # (when, offset), not counted as uploaded yet
        self._run: ServiceRun | None = None

    def upload(self) -> None:
        """Uploads the journal until its run has ended; raises whatever the client of the service raises."""
        self.state.pop("fault", None)
        try:
            while True:
                journal = records.locate(self.folder, self.uid)[0]
                writer_gone = not has_writer(
                    journal
                )  # before reading: nothing can follow what is read now
                if self._send_new(journal):
                    self._acknowledge(CLIENT_SECONDS)
                elif writer_gone or "status" in self.state:
                    break
                else:
                    time.sleep(POLL_SECONDS)
            if self._run is not None:
                self._run.end(self.state.get("status", "KILLED"))
            self._acknowledge(0.0)
        except Exception as error:  # of the client of a service, or of HTTP: no common base class
            self.state["fault"] = without_secrets(one_line(error))
            raise
        finally:
            write_json(self._path, self.state, indent=None)

    def _send_new(self, journal: Path) -> bool:
        """Sends the records that were added; returns whether there were any."""
        before = self._offset
        for record, end in records.read_records(journal, before):
            if record is not None:
                self._send(record, journal)
            self._offset = end
        if self._offset != before:
            self._given.append((time.monotonic(), self._offset))
        return self._offset != before

    def _send(self, record: records.Record, journal: Path) -> None:
        if "truncate_after" in record:
            step = record["truncate_after"]
            self.state["seen"] = {
                key: last for key, last in self.state["last"].items() if last > step
            }
            return
        run = self._open(journal)
        if "m" in record:
            step, seen = record["s"], self.state["seen"]
            metrics = {
                key: float(value) for key, value in record["m"].items() if step > seen.get(key, -1)
            }
            self.state["last"] |= {
                key: max(step, self.state["last"].get(key, 0)) for key in metrics
            }
            if metrics:
                run.log(step, metrics, record["t"])
        elif "start" in record:
            start = record["start"]
            run.set_config(
                typed(start["params"])
                | {f"tags.{key}": value for key, value in start["tags"].items()}
            )
            self.state.pop("status", None)
        elif "tags" in record:
            run.set_config({f"tags.{key}": value for key, value in record["tags"].items()})
        elif "dataset" in record:
            run.set_config(
                {f"dataset.{key}": str(value) for key, value in record["dataset"].items()}
            )
        elif "end" in record:
            self.state["status"] = record["end"]
        else:
            self._send_files(run, record)

    def _send_files(self, run: ServiceRun, record: records.Record) -> None:
        try:
            if "artifact" in record:
                run.log_artifact(self.folder, record["artifact"]["path"], record["artifact"]["to"])
            elif "model" in record:
                run.log_model(self.folder, record["model"]["files"], record["model"]["step"])
        except UserError as error:
            self.state.setdefault("missing", printable(str(error)))

    def _open(self, journal: Path) -> ServiceRun:
        if self._run is None:
            start = records.read_start(journal)
            assert start is not None, "a journal with a record has a start"
            self._run = self.service.open(self.project, start)
        return self._run

    def _acknowledge(self, seconds: float) -> None:
        """Records as uploaded what the client was given at least `seconds` ago."""
        offset = self.state["offset"]
        while self._given and time.monotonic() - self._given[0][0] >= seconds:
            offset = self._given.popleft()[1]
        if offset != self.state["offset"]:
            self.state["offset"] = offset
            write_json(self._path, self.state, indent=None)

    def _new_state(self) -> UploadState:
        return {"uid": self.uid, "offset": 0, "last": {}, "seen": {}}


def without_secrets(text: str) -> str:
    """The text without the keys and tokens of the environment."""
    for name in SECRETS:
        if value := os.environ.get(name):
            text = text.replace(value, "***")
    return text


def upload_folder(service: Service, folder: Path, project: Path) -> Iterator[str]:
    """Uploads the runs of a folder that have ended; yields lines for the user.

    Raises:
        InputNotFoundError: no run was tracked there.
        DataError: a journal is damaged.
        ServiceUnavailableError: the service cannot be used, or another process is uploading the run.
    """
    if not (journals := sorted(folder.glob(records.JOURNALS))):
        raise InputNotFoundError(f"{folder}: has no {records.FILE}: no run was tracked there")
    for journal in journals:
        if (start := records.read_start(journal)) is None:
            raise DataError(f"{journal}: is empty")
        title = f"{records.utf8(folder)}: {service.describe()}"
        if has_writer(journal):
            yield f"{title}: its run is not over"
            continue
        uploader = ServiceUploader(service, folder, start["uid"], project)
        with lock(lock_path(project, start["uid"], service.name)) as is_only_one:
            if not is_only_one:
                raise ServiceUnavailableError(f"{title}: another process is uploading it")
            try:
                uploader.upload()
            except UserError:
                raise
            except (
                Exception
            ) as error:  # of the client of a service, or of HTTP: no common base class
                reason = without_secrets(one_line(error))
                raise ServiceUnavailableError(f"{title}: {reason}; nothing is lost") from None
        missing = uploader.state.get("missing")
        yield f"{title}: complete" + (f", but missing: {missing}" if missing else "")
