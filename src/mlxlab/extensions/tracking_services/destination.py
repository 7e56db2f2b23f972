"""A tracking service as the destination of a journal: one process per run uploads it."""

import json
import os
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

from annotated_types import Ge

from mlxlab.detached import start_detached
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.extensions.tracking_services.service import Service
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.tracking.mlflow.queue import lock
from mlxlab.tracking.records import Step, Uid, locate, utf8
from mlxlab.tracking.tracker import Status

POLL_SECONDS = 0.05


class UploadState(TypedDict):
    """`journal-<uid>.<service>.json`: how far a journal has been uploaded to a service."""

    uid: Uid
    offset: Annotated[int, Ge(0)]  # bytes of the journal
    last: dict[str, Step]  # metric -> last step that was sent
    seen: dict[str, Step]  # ... that a resumed run logs again, which a service cannot take back
    status: NotRequired[Status]
    fault: NotRequired[str]  # why the last attempt ended
    missing: NotRequired[str]  # the first file that could not be uploaded, and why


def state_path(folder: Path, uid: str, name: str) -> Path:
    return folder / f"journal-{uid}.{name}.json"


def read_upload_state(path: Path, uid: str) -> UploadState:
    """The state of the upload of journal `uid`; a new one if it is missing, damaged or of another."""
    with suppress(InputNotFoundError, DataError):
        state = read_json(path, UploadState)
        if state["uid"] == uid:
            return state
    return {"uid": uid, "offset": 0, "last": {}, "seen": {}}


class ServiceDestination:
    """A service that runs are uploaded to; raises as `Service.check`."""

    def __init__(self, service: Service, project: Path) -> None:
        service.check()
        self.service = service
        self.project = project.absolute()

    def start(self, folder: Path, uid: str) -> None:
        name = self.service.name
        lock_path(self.project, uid, name).parent.mkdir(parents=True, exist_ok=True)
        path = state_path(folder, uid, name)
        state = read_upload_state(path, uid)
        if state.pop("fault", None) is not None:
            write_json(path, state, indent=None)
        upload = {"service": name, "options": self.service.options(), "uid": uid}
        upload |= {"folder": os.fspath(folder), "project": os.fspath(self.project)}
        start_detached(
            "mlxlab.extensions.tracking_services.process",
            {"MLXLAB_UPLOAD": json.dumps(upload)},
            Path(os.devnull),
        )

    def ensure_running(self, folder: Path, uid: str) -> None:
        with lock(lock_path(self.project, uid, self.service.name)) as is_free:
            pass
        if is_free:
            with suppress(OSError):
                self.start(folder, uid)

    def wait(self, folder: Path, uid: str, seconds: float) -> str:
        name = self.service.name
        size = locate(folder, uid)[0].stat().st_size
        until = time.monotonic() + seconds
        while True:
            state = read_upload_state(state_path(folder, uid, name), uid)
            if state["offset"] >= size:
                return ""
            if "fault" in state:
                return f"{name}: {state['fault']}"
            if time.monotonic() >= until:
                return f"{name} is not complete yet"
            time.sleep(POLL_SECONDS)

    def remedy(self, folder: Path) -> str:
        args = ["mlxlab", "runs", "sync", utf8(folder), f"to={self.service.name}"]
        for key, value in self.service.options().items():
            if value not in (None, False):
                args.append(f"{key}={'true' if value is True else value}")
        return shlex.join(args)

    def describe(self) -> str:
        return self.service.describe()


def lock_path(project: Path, uid: str, name: str) -> Path:
    """Locked by the process that uploads. Not in the run folder, which may be anyone's."""
    return project / "mlruns" / ".uploads" / f"{uid}.{name}.lock"
