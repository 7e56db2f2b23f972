"""Uploads journals to a tracking service.

An upload follows the journal until its run has ended. What a service was sent counts as uploaded
after a few seconds, in which its client sends or stores it: if this process dies, the last records
are sent twice, which shows as one point.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError, ServiceUnavailableError, UserError
from mlxlab.extensions.tracking_services.destination import (
    ServiceDestination,
    lock_path,
    read_upload_state,
    state_path,
)
from mlxlab.extensions.tracking_services.service import Service, ServiceRun, Value, typed
from mlxlab.files.atomic import write_json
from mlxlab.tracking import records
from mlxlab.tracking.mlflow.errors import one_line, printable
from mlxlab.tracking.mlflow.queue import lock
from mlxlab.tracking.record_writer import has_writer

POLL_SECONDS = 0.5
CLIENT_SECONDS = 5.0  # after which a client has sent or stored what it was given
SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "TRACKIO_WRITE_TOKEN")


class ServiceUploader:
    """The journal of run `uid` in `folder`. Nothing outside the folder is read."""

    def __init__(self, service: Service, folder: Path, uid: str, project: Path) -> None:
        self.service = service
        self.folder = folder
        self.uid = uid
        self.project = project
        self._path = state_path(folder, uid, service.name)
        self.state = read_upload_state(self._path, uid)
        self._offset = self.state["offset"]  # of what the client was given
        self._sent: deque[tuple[float, int]] = deque()  # (when, offset), not yet uploaded
        self._run: ServiceRun | None = None

    def upload(self) -> None:
        """Uploads the journal until its run has ended; raises whatever the client raises."""
        self.state.pop("fault", None)
        try:
            self._follow()
            if self._run is not None:
                self._run.end(self.state.get("status", "KILLED"))
            self._acknowledge(0.0)
        except Exception as error:  # Clients, and HTTP, have no common base class of errors.
            self.state["fault"] = without_secrets(one_line(error))
            raise
        finally:
            write_json(self._path, self.state, indent=None)

    def _follow(self) -> None:
        while True:
            journal = records.locate(self.folder, self.uid)[0]
            is_complete = not has_writer(journal)  # Checked first: nothing follows what is read.
            if self._send_new(journal):
                self._acknowledge(CLIENT_SECONDS)
            elif is_complete or "status" in self.state:
                return
            else:
                time.sleep(POLL_SECONDS)

    def _send_new(self, journal: Path) -> bool:
        """Sends the records that were added; returns whether there were any."""
        before = self._offset
        for record, end in records.read_records(journal, before):
            if record is not None:
                self._send(record, journal)
            self._offset = end
        if self._offset == before:
            return False
        self._sent.append((time.monotonic(), self._offset))
        return True

    def _send(self, record: records.Record, journal: Path) -> None:
        if "truncate_after" in record:
            step = record["truncate_after"]
            last = self.state["last"]
            self.state["seen"] = {key: at for key, at in last.items() if at > step}
            return
        if self._run is None:
            opened = records.read_start(journal)
            assert opened is not None, "a journal with a record has a start"
            self._run = self.service.open(self.project, opened)
        run = self._run
        if "m" in record:
            self._send_metrics(run, record["m"], record["s"], record["t"])
        elif "start" in record:
            start = record["start"]
            run.set_config(typed(start["params"]) | _prefixed("tags", start["tags"]))
            self.state.pop("status", None)
        elif "tags" in record:
            run.set_config(_prefixed("tags", record["tags"]))
        elif "dataset" in record:
            run.set_config(_prefixed("dataset", record["dataset"]))
        elif "end" in record:
            self.state["status"] = record["end"]
        else:
            self._send_files(run, record)

    def _send_metrics(
        self, run: ServiceRun, values: Mapping[str, float | str], step: int, t: int
    ) -> None:
        last = self.state["last"]
        seen = self.state["seen"]
        metrics = {key: float(x) for key, x in values.items() if step > seen.get(key, -1)}
        for key in metrics:
            last[key] = max(step, last.get(key, 0))
        if metrics:
            run.log(step, metrics, t)

    def _send_files(self, run: ServiceRun, record: records.Record) -> None:
        try:
            if "artifact" in record:
                run.log_artifact(self.folder, record["artifact"]["path"], record["artifact"]["to"])
            elif "model" in record:
                run.log_model(self.folder, record["model"]["files"], record["model"]["step"])
        except UserError as error:
            self.state.setdefault("missing", printable(str(error)))

    def _acknowledge(self, seconds: float) -> None:
        """Records as uploaded what the client was given at least `seconds` ago."""
        while self._sent and time.monotonic() - self._sent[0][0] >= seconds:
            self.state["offset"] = self._sent.popleft()[1]
        write_json(self._path, self.state, indent=None)


def _prefixed(prefix: str, values: Mapping[str, object]) -> dict[str, Value]:
    return {f"{prefix}.{key}": str(value) for key, value in values.items()}


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
        ServiceUnavailableError: the service cannot be used, or the run is being uploaded.
    """
    journals = sorted(folder.glob(records.JOURNALS))
    if not journals:
        raise InputNotFoundError(f"{folder}: has no {records.FILE}: no run was tracked there")
    title = f"{records.utf8(folder)}: {service.describe()}"
    for journal in journals:
        start = records.read_start(journal)
        if start is None:
            raise DataError(f"{journal}: is empty")
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
            except Exception as error:  # Clients, and HTTP, have no common base class of errors.
                reason = without_secrets(one_line(error))
                raise ServiceUnavailableError(f"{title}: {reason}; nothing is lost") from None
        missing = uploader.state.get("missing")
        yield f"{title}: complete, but missing: {missing}" if missing else f"{title}: complete"


class UploadedService:
    """How a service, a dataclass of its options, is used by the tracker."""

    def options(self) -> dict[str, Value]:
        return dict(vars(self))

    def destination(self: Service, project: Path) -> ServiceDestination:
        return ServiceDestination(self, project)

    def upload(self: Service, folder: Path, project: Path) -> Iterator[str]:
        return upload_folder(self, folder, project)
